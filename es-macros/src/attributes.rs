//! Reading `#[event(…)]`.

use syn::{
    Attribute, Error, Expr, ExprLit, Field, Ident, Lit, LitInt, LitStr, Token, Variant,
    meta::ParseNestedMeta,
    parenthesized,
    parse::{Parse, ParseStream},
    token::Paren,
};

use crate::{
    input::{Errors, snake_case},
    rules::{Upcaster, check_category, check_chain, check_name, check_upcasters},
    tags::TagRule,
};

/// What `#[event(…)]` says about a variant.
pub(crate) struct Schema {
    pub(crate) name: LitStr,
    pub(crate) version: u32,
    pub(crate) upcasters: Vec<Upcaster>,
    pub(crate) tags: Vec<TagRule>,
}

impl Parse for Upcaster {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let literal: LitInt = input
            .parse()
            .map_err(|error| Error::new(error.span(), "an old version is a number; write `upcast(1 = from_v1)`"))?;
        let from = small(&literal)?;
        input.parse::<Token![=]>()?;
        match expression(input)? {
            Expr::Path(function) => Ok(Self { literal, from, function }),
            other => Err(Error::new_spanned(
                other,
                "an upcaster is the path of a function; write `fn from_v1(old: Old) -> Self` \
                 and name it here: `upcast(1 = from_v1)`",
            )),
        }
    }
}

/// The category that is written above the enum, and the tags of all its events.
pub(crate) fn category(attributes: &[Attribute], of: &Ident, errors: &mut Errors) -> (Option<LitStr>, Vec<TagRule>) {
    let (mut category, mut tags) = (None, Vec::new());
    let well_formed = read(attributes, errors, |meta| match key(meta).as_str() {
        "category" => set(&mut category, meta, text(meta, "order")?),
        "tag" | "tags" => rule(&mut tags, meta),
        other => Err(meta.error(format!(
            "an event enum has no `{other}`; write `category = \"…\"` or a `tag` of all its events here and `name`, \
             `version` and `upcast` above its variants"
        ))),
    });
    if let Some(category) = &category {
        check_category(category, errors);
    } else if well_formed {
        let own = of.to_string();
        let stem = own.strip_suffix("Event").filter(|stem| !stem.is_empty()).unwrap_or(&own);
        errors.at(
            of,
            format!(
                "`{of}` has no category; write `#[event(category = \"{}\")]` above the enum: its \
                 events live in streams of that category",
                snake_case(stem)
            ),
        );
    }
    (category, tags)
}

/// The schema that is written above `variant`; `category` is for advice.
pub(crate) fn schema(variant: &Variant, category: &str, errors: &mut Errors) -> Option<Schema> {
    let (mut name, mut version, mut upcasters, mut tags) = (None, None, None, Vec::new());
    let well_formed = read(&variant.attrs, errors, |meta| match key(meta).as_str() {
        "name" => set(&mut name, meta, text(meta, "order.placed")?),
        "version" => set(&mut version, meta, number(meta)?),
        "upcast" => set(&mut upcasters, meta, upcasts(meta)?),
        "tag" | "tags" => rule(&mut tags, meta),
        other => Err(meta.error(format!(
            "a variant has no `{other}`; write `name = \"…\"`, `version = 2`, \
             `upcast(1 = from_v1)` or `tag = \"…\"` here and `category` above the enum"
        ))),
    });
    variant.fields.iter().for_each(|field| reject_on(field, errors));
    let upcasters = upcasters.unwrap_or_default();
    let current = version.as_ref().map_or(1, |(_, version)| (*version).max(1));
    check_upcasters(&upcasters, current, errors);
    match version {
        Some((literal, 0)) => errors.at(literal, "schema versions start at 1; write `version = 1` or leave it out"),
        Some((literal, _)) if well_formed => check_chain(&upcasters, &literal, current, errors),
        _ => {}
    }
    let version = current;
    if let Some(name) = name {
        check_name(&name, errors);
        return Some(Schema { name, version, upcasters, tags });
    }
    if well_formed {
        let advice = format!("{category}.{}", snake_case(&variant.ident.to_string()));
        errors.at(
            &variant.ident,
            format!(
                "`{}` has no wire name; write `#[event(name = \"{advice}\")]` above it: the wire \
                 name is what the log keeps, so that the variant can be renamed",
                variant.ident
            ),
        );
    }
    None
}

/// Hands every key of `#[event(…)]` to `take`; tells whether all of it could be read.
fn read(
    attributes: &[Attribute],
    errors: &mut Errors,
    mut take: impl FnMut(&ParseNestedMeta<'_>) -> syn::Result<()>,
) -> bool {
    let own = attributes.iter().filter(|attribute| attribute.path().is_ident("event"));
    own.fold(true, |well_formed, attribute| {
        let read = attribute.parse_nested_meta(|meta| take(&meta));
        errors.keep(read).is_some() && well_formed
    })
}

fn key(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map(Ident::to_string).unwrap_or_default()
}

fn set<T>(slot: &mut Option<T>, meta: &ParseNestedMeta<'_>, value: T) -> syn::Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error(format!("`{0}` is given twice; keep one `{0}`", key(meta)))),
    }
}

/// The next value, without the invisible group in which a `macro_rules!` fragment comes.
fn expression(input: ParseStream) -> syn::Result<Expr> {
    let mut value = input.parse()?;
    while let Expr::Group(group) = value {
        value = *group.expr;
    }
    Ok(value)
}

fn text(meta: &ParseNestedMeta<'_>, example: &str) -> syn::Result<LitStr> {
    match expression(meta.value()?)? {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text),
        other => {
            Err(Error::new_spanned(other, format!("`{0}` is a text in quotes; write `{0} = \"{example}\"`", key(meta))))
        }
    }
}

/// Adds the rule for tags that comes next: there may be several.
fn rule(rules: &mut Vec<TagRule>, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
    if meta.path.is_ident("tag") {
        rules.push(TagRule::Template(text(meta, "room:{room}")?));
        return Ok(());
    }
    match expression(meta.value()?)? {
        Expr::Path(function) => rules.push(TagRule::Function(function)),
        other => {
            return Err(Error::new_spanned(
                other,
                "`tags` is the path of a function; write `fn tags(event: &Self) -> Vec<String>` and name it here: \
                 `tags = tags`, or write one tag as a text: `tag = \"room:{room}\"`",
            ));
        }
    }
    Ok(())
}

fn number(meta: &ParseNestedMeta<'_>) -> syn::Result<(LitInt, u32)> {
    match expression(meta.value()?)? {
        Expr::Lit(ExprLit { lit: Lit::Int(literal), .. }) => {
            let number = small(&literal)?;
            Ok((literal, number))
        }
        other => Err(Error::new_spanned(other, "`version` is a number; write `version = 2`")),
    }
}

fn small(literal: &LitInt) -> syn::Result<u32> {
    literal
        .base10_parse()
        .map_err(|_| Error::new_spanned(literal, "a schema version is a `u32`; write the next free number, like `2`"))
}

fn upcasts(meta: &ParseNestedMeta<'_>) -> syn::Result<Vec<Upcaster>> {
    if !meta.input.peek(Paren) {
        return Err(meta.error("name the old version, too; write `upcast(1 = from_v1)`"));
    }
    let list;
    parenthesized!(list in meta.input);
    Ok(list.parse_terminated(Upcaster::parse, Token![,])?.into_iter().collect())
}

fn reject_on(field: &Field, errors: &mut Errors) {
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("event")) {
        errors.at(attribute, "`#[event]` says nothing about a field; write it above the variant");
    }
}
