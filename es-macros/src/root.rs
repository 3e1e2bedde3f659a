//! The crate through which the derives are used, so that an application names one dependency only.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};

/// The packages that re-export the derives. The facade first: where both are dependencies, the other one
/// may be there for tests only.
const PACKAGES: [&str; 2] = ["evenfold", "es-core"];

/// `implementation` in a scope in which `__es` is that crate.
pub(crate) fn scoped(implementation: &TokenStream) -> syn::Result<TokenStream> {
    let found = PACKAGES.iter().find_map(|package| Some((package, crate_name(package).ok()?)));
    let Some((package, found)) = found else {
        let message = "this derive needs `evenfold` (or `es-core`) among the dependencies in Cargo.toml";
        return Err(syn::Error::new(Span::call_site(), message));
    };
    let root = match found {
        // Both declare themselves under their own name.
        FoundCrate::Itself => format_ident!("{}", package.replace('-', "_")),
        FoundCrate::Name(name) => format_ident!("{name}"),
    };
    Ok(quote! {
        const _: () = {
            use ::#root as __es;
            #implementation
        };
    })
}
