//! Reading `#[event(…)]`.

use syn::{
    Attribute, DeriveInput, Error, Expr, ExprLit, Field, Fields, Ident, Lit, LitInt, LitStr, Token, Variant,
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

/// What `#[event(…)]` says about a kind of event.
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

/// What `#[event(…)]` may say about a kind of event.
#[derive(Default)]
struct Words {
    name: Option<LitStr>,
    version: Option<(LitInt, u32)>,
    upcasters: Option<Vec<Upcaster>>,
    tags: Vec<TagRule>,
}

impl Words {
    /// Takes the next key; tells whether it is one of these.
    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<bool> {
        match key(meta).as_str() {
            "name" => set(&mut self.name, meta, text(meta, "order.placed")?)?,
            "version" => set(&mut self.version, meta, number(meta)?)?,
            "upcast" => set(&mut self.upcasters, meta, upcasts(meta)?)?,
            "tag" | "tags" => rule(&mut self.tags, meta)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The schema of the event `of`. `advice` is a wire name for it; it is no advice where the attributes could not be read.
    fn schema(self, of: &Ident, well_formed: bool, advice: &str, wraps: bool, errors: &mut Errors) -> Option<Schema> {
        let Self { name, version, upcasters, tags } = self;
        let upcasters = upcasters.unwrap_or_default();
        let current = version.as_ref().map_or(1, |(_, version)| (*version).max(1));
        check_upcasters(&upcasters, current, errors);
        match version {
            Some((literal, 0)) => errors.at(literal, "schema versions start at 1; write `version = 1` or leave it out"),
            Some((literal, _)) if well_formed => check_chain(&upcasters, &literal, current, errors),
            _ => {}
        }
        if let Some(name) = name {
            check_name(&name, errors);
            return Some(Schema { name, version: current, upcasters, tags });
        }
        if well_formed {
            let inherit = if wraps { ", or, if it wraps an event, leave out `version` and `upcast`" } else { "" };
            errors.at(
                of,
                format!(
                    "`{of}` has no wire name; write `#[event(name = \"{advice}\")]` above it{inherit}: the wire \
                     name is what the log keeps, so that the Rust name can change"
                ),
            );
        }
        None
    }
}

/// The category that is written above an enum, and the tags of all its events.
pub(crate) fn of_enum(attributes: &[Attribute], of: &Ident, errors: &mut Errors) -> (Option<LitStr>, Vec<TagRule>) {
    let (mut category, mut tags) = (None, Vec::new());
    let well_formed = read(attributes, errors, |meta| match key(meta).as_str() {
        "category" => set(&mut category, meta, text(meta, "order")?),
        "tag" | "tags" => rule(&mut tags, meta),
        other => Err(meta.error(format!(
            "an event enum has no `{other}`; write `category = \"…\"` or a `tag` of all its events here and `name`, \
             `version` and `upcast` above its variants"
        ))),
    });
    check_given(category.as_ref(), well_formed, of, errors);
    (category, tags)
}

/// The category and the schema that are written above a struct.
pub(crate) fn of_struct(input: &DeriveInput, fields: &Fields, errors: &mut Errors) -> (Option<LitStr>, Option<Schema>) {
    let (mut category, mut words) = (None, Words::default());
    let well_formed = read(&input.attrs, errors, |meta| {
        if meta.path.is_ident("category") {
            return set(&mut category, meta, text(meta, "order")?);
        }
        if words.take(meta)? {
            return Ok(());
        }
        Err(meta.error(format!(
            "an event struct has no `{}`; write `category = \"…\"`, `name = \"…\"`, `version = 2`, \
             `upcast(1 = from_v1)` or `tag = \"…\"`",
            key(meta)
        )))
    });
    fields.iter().for_each(|field| reject_on(field, "the struct", errors));
    check_given(category.as_ref(), well_formed, &input.ident, errors);
    let prefix = category.as_ref().map_or_else(|| "order".to_owned(), LitStr::value);
    let own = snake_case(&input.ident.to_string());
    let advice = format!("{prefix}.{}", own.strip_prefix(&format!("{prefix}_")).unwrap_or(&own));
    (category, words.schema(&input.ident, well_formed, &advice, false, errors))
}

/// What is written above a variant.
pub(crate) enum OfVariant {
    /// Its own schema.
    Own(Schema),
    /// No schema, since it wraps an event that has one; tags beside those of that event.
    Inherited(Vec<TagRule>),
}

/// What is written above `variant`; `category` is for advice.
pub(crate) fn of_variant(variant: &Variant, category: &str, errors: &mut Errors) -> Option<OfVariant> {
    let mut words = Words::default();
    let well_formed = read(&variant.attrs, errors, |meta| {
        if words.take(meta)? {
            return Ok(());
        }
        Err(meta.error(format!(
            "a variant has no `{}`; write `name = \"…\"`, `version = 2`, \
             `upcast(1 = from_v1)` or `tag = \"…\"` here and `category` above the enum",
            key(meta)
        )))
    });
    variant.fields.iter().for_each(|field| reject_on(field, "the variant", errors));
    let wraps = matches!(&variant.fields, Fields::Unnamed(fields) if fields.unnamed.len() == 1);
    if wraps && well_formed && words.name.is_none() && words.version.is_none() && words.upcasters.is_none() {
        let fields = variant.fields.iter().flat_map(|field| &field.attrs);
        for attribute in variant.attrs.iter().chain(fields).filter(|attribute| attribute.path().is_ident("serde")) {
            errors.at(
                attribute,
                format!(
                    "`{}` takes the payload of the event that it wraps; write this above that event's type, or give the \
                     variant a wire name of its own",
                    variant.ident
                ),
            );
        }
        return Some(OfVariant::Inherited(words.tags));
    }
    let advice = format!("{category}.{}", snake_case(&variant.ident.to_string()));
    words.schema(&variant.ident, well_formed, &advice, wraps, errors).map(OfVariant::Own)
}

/// Checks the category of `of`, which must have one.
fn check_given(category: Option<&LitStr>, well_formed: bool, of: &Ident, errors: &mut Errors) {
    if let Some(category) = category {
        check_category(category, errors);
    } else if well_formed {
        let own = of.to_string();
        let stem = own.strip_suffix("Event").filter(|stem| !stem.is_empty()).unwrap_or(&own);
        errors.at(
            of,
            format!(
                "`{of}` has no category; write `#[event(category = \"{}\")]` above it: its \
                 events live in streams of that category",
                snake_case(stem)
            ),
        );
    }
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

fn reject_on(field: &Field, above: &str, errors: &mut Errors) {
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("event")) {
        errors.at(attribute, format!("`#[event]` says nothing about a field; write it above {above}"));
    }
}
