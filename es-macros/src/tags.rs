//! `tag = "room:{room}"` and `tags = path`: by what queries find an event.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{ExprPath, Fields, Ident, LitStr, Member, Type, ext::IdentExt, parse_str, spanned::Spanned};

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

/// Of which event tags are made.
pub(crate) struct Tagged<'a> {
    /// The path of its constructor.
    pub(crate) path: TokenStream,
    /// Its name in Rust, for errors.
    pub(crate) ident: &'a Ident,
    pub(crate) fields: &'a Fields,
    /// The expression of its wire name.
    pub(crate) name: TokenStream,
    /// The type of the event that it wraps and whose tags it has too: templates take fields of that one.
    pub(crate) wraps: Option<&'a Type>,
}

/// The arm of `fn tags` for `event`; `None` if it has no tags.
pub(crate) fn arm(event: &Tagged<'_>, rules: &[TagRule], errors: &mut Errors) -> Option<TokenStream> {
    let Tagged { path, name, wraps, .. } = event;
    let mut members: Vec<Member> = Vec::new();
    let mut makers = Vec::new();
    for rule in rules {
        match rule {
            TagRule::Template(literal) => {
                let Some(Template { format, fields }) = template(literal, event, errors) else { continue };
                // Located at the template, so that a field that is not there or cannot be displayed is reported there.
                let span = Span::call_site().located_at(literal.span());
                let arguments = fields.into_iter().map(|mut field| match wraps {
                    Some(_) => {
                        match &mut field {
                            Member::Named(name) => name.set_span(span),
                            Member::Unnamed(index) => index.span = span,
                        }
                        quote_spanned!(span=> __wrapped.#field)
                    }
                    None => local(&mut members, field).into_token_stream(),
                });
                let arguments: Vec<_> = arguments.collect();
                let format = LitStr::new(&format, literal.span());
                let text = quote_spanned!(span=> ::std::format!(#format #(, #arguments)*));
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
    if let Some(ty) = wraps {
        let inherited = quote!(__tags.extend(<#ty as __es::Event>::tags(__wrapped)?););
        return Some(quote!(#path(__wrapped) => { #inherited #(#makers)* }));
    }
    let locals = (0..members.len()).map(|index| format_ident!("__tag{index}"));
    (!rules.is_empty()).then(|| quote!(#path { #(#members: #locals,)* .. } => { #(#makers)* }))
}

/// The variable that holds `field`, which is one of `members` from now on.
fn local(members: &mut Vec<Member>, field: Member) -> Ident {
    let index = members.iter().position(|member| *member == field).unwrap_or_else(|| {
        members.push(field);
        members.len() - 1
    });
    format_ident!("__tag{index}")
}

fn template(literal: &LitStr, event: &Tagged<'_>, errors: &mut Errors) -> Option<Template> {
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
        let Some(member) = member(field, event) else {
            errors.at(literal, unknown(field, event));
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

/// The field of `event` that a template calls `name`. The fields of an event that is wrapped are not known here: the
/// compiler looks for them.
fn member(name: &str, event: &Tagged<'_>) -> Option<Member> {
    if event.wraps.is_some() {
        return parse_str::<Member>(name).or_else(|_| parse_str(&format!("r#{name}"))).ok();
    }
    event.fields.members().find(|member| match member {
        Member::Named(field) => field.unraw() == name,
        Member::Unnamed(index) => index.index.to_string() == name,
    })
}

fn unknown(name: &str, event: &Tagged<'_>) -> String {
    let known: Vec<_> = event.fields.members().map(|member| format!("`{{{}}}`", told(&member))).collect();
    let of = event.ident;
    if let Some((field, _)) = name.split_once(':') {
        return format!(
            "a tag is made with `Display` and takes no format after `:`; write `{{{field}}}`, or `tags = path` with a \
             `fn(&Self) -> Vec<String>`"
        );
    }
    match &known[..] {
        [] => format!("`{of}` has no fields; write a tag without braces, or `tags = path` with a function"),
        [only] if only == "`{0}`" && event.wraps.is_none() => {
            format!(
                "`{of}` has no field `{name}`; write `{{0}}`, or, if `{of}` wraps an event, remove the wire name above it"
            )
        }
        known if event.wraps.is_none() => format!("`{of}` has no field `{name}`; write one of {}", known.join(", ")),
        _ => format!("`{name}` cannot be a field; write the name of a field of the event that `{of}` wraps"),
    }
}

fn told(member: &Member) -> String {
    match member {
        Member::Named(field) => field.unraw().to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}
