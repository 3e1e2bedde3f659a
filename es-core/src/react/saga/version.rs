//! The versions of a saga's definition.

use super::Saga;

/// The version under which new instances begin.
pub(super) const fn current_version<S: Saga>() -> u32 {
    const {
        let versions = S::VERSIONS;
        assert!(!versions.is_empty(), "Saga::VERSIONS names at least one version");
        let mut at = 1;
        while at < versions.len() {
            assert!(versions[at - 1] < versions[at], "Saga::VERSIONS are in ascending order");
            at += 1;
        }
        versions[versions.len() - 1]
    }
}

/// Whether this code runs instances under `version` as they are.
pub(super) fn runs<S: Saga>(version: u32) -> bool {
    S::VERSIONS.contains(&version)
}

/// The ranges of versions below the current one that this code does not run.
pub(super) fn gaps<S: Saga>() -> impl Iterator<Item = std::ops::Range<u32>> {
    let before = std::iter::once(0).chain(S::VERSIONS.iter().map(|version| version + 1));
    before.zip(S::VERSIONS.iter().copied()).filter(|(from, to)| from < to).map(|(from, to)| from..to)
}
