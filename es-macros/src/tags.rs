//! `tag = "room:{room}"` and `tags = path`: by what queries find an event.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{ExprPath, Ident, LitStr, Member, Variant, ext::IdentExt, spanned::Spanned};

use crate::{input::Errors, rules::check_tag};

/// How tags are made of an event.
#[derive(Clone)]
pub(crate) enum TagRule {
    /// Text with fields in braces: one tag.
    Template(LitStr),
    /// A function of the whole event: any number of tags.
    Function(ExprPath),
}

/// A template as `format!` takes it, with the fields that it asks for.
struct Template {
    format: String,
    fields: Vec<Member>,
}

/// The arm of `fn tags` for `variant`, whose wire name is `name`; `None` if it has no tags.
pub(crate) fn arm(variant: &Variant, name: &LitStr, rules: &[TagRule], errors: &mut Errors) -> Option<TokenStream> {
    let mut members: Vec<Member> = Vec::new();
    let mut makers = Vec::new();
    for rule in rules {
        match rule {
            TagRule::Template(literal) => {
                let Some(Template { format, fields }) = template(literal, variant, errors) else { continue };
                let arguments: Vec<_> = fields.into_iter().map(|field| local(&mut members, field)).collect();
                let format = LitStr::new(&format, literal.span());
                // Located at the template, so that a field which cannot be displayed is reported there.
                let text = quote_spanned!(literal.span()=> ::std::format!(#format #(, #arguments)*));
                makers.push(quote!(__tags.push(__es::__private::tag(#name, #literal, #text)?);));
            }
            TagRule::Function(function) => {
                let rule = format!("tags = {}", function.to_token_stream().to_string().replace(' ', ""));
                // Resolved like the rest, located at the function.
                let span = Span::call_site().located_at(function.span());
                makers.push(quote_spanned! {span=>
                    for __text in #function(self) {
                        __tags.push(__es::__private::tag(#name, #rule, __text)?);
                    }
                });
            }
        }
    }
    let variant = &variant.ident;
    let locals = (0..members.len()).map(|index| format_ident!("__tag{index}"));
    (!rules.is_empty()).then(|| quote!(Self::#variant { #(#members: #locals,)* .. } => { #(#makers)* }))
}

/// The variable that holds `field`, which is one of `members` from now on.
fn local(members: &mut Vec<Member>, field: Member) -> Ident {
    let index = members.iter().position(|member| *member == field).unwrap_or_else(|| {
        members.push(field);
        members.len() - 1
    });
    format_ident!("__tag{index}")
}

fn template(literal: &LitStr, variant: &Variant, errors: &mut Errors) -> Option<Template> {
    let text = literal.value();
    let (mut format, mut fields, mut fixed) = (String::new(), Vec::new(), String::new());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        format.push_str(before);
        fixed.push_str(before);
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            format.push_str(&from[..2]);
            fixed.push_str(&from[..1]);
            rest = after;
            continue;
        }
        let Some((field, after)) = from.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
            errors.at(
                literal,
                "a brace has no partner; write a field in braces, `\"room:{room}\"`, or `{{` and `}}` for the braces \
                 themselves",
            );
            return None;
        };
        let Some(member) = member(field, variant) else {
            errors.at(literal, unknown(field, variant));
            return None;
        };
        format.extend(["{", &fields.len().to_string(), "}"]);
        fields.push(member);
        rest = after;
    }
    format.push_str(rest);
    fixed.push_str(rest);
    check_tag(literal, &fixed, !fields.is_empty(), errors);
    Some(Template { format, fields })
}

/// The field of `variant` that a template calls `name`.
fn member(name: &str, variant: &Variant) -> Option<Member> {
    variant.fields.members().find(|member| match member {
        Member::Named(field) => field.unraw() == name,
        Member::Unnamed(index) => index.index.to_string() == name,
    })
}

fn unknown(name: &str, variant: &Variant) -> String {
    let known: Vec<_> = variant.fields.members().map(|member| format!("`{{{}}}`", told(&member))).collect();
    let of = &variant.ident;
    if let Some((field, _)) = name.split_once(':') {
        return format!(
            "a tag is made with `Display` and takes no format after `:`; write `{{{field}}}`, or `tags = path` with a \
             `fn(&Self) -> Vec<String>`"
        );
    }
    match &known[..] {
        [] => format!("`{of}` has no fields; write a tag without braces, or `tags = path` with a function"),
        known => format!("`{of}` has no field `{name}`; write one of {}", known.join(", ")),
    }
}

fn told(member: &Member) -> String {
    match member {
        Member::Named(field) => field.unraw().to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}
