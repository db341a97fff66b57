//! How far the layout of an entry goes, and which version of wazero has which.

/// How far the layout of an entry goes. The format has no number for it: reader and writer have to agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Revision {
    /// The entry ends with the source map: wazero 1.7 to 1.11.
    SourceMap,
    /// Try tables follow the source map, always, each a list of catch clauses: wazero 1.12.0.
    #[default]
    CatchClauses,
    /// Locals stand in front of the clauses of each try table: wazero's main since 2026-06-24.
    Locals,
    /// A try table count follows the source map, always; the layout of a try table is not known. Entries without try
    /// tables are the same as in the two revisions above, and no others are read or written.
    Unknown,
}

impl Revision {
    /// The day of the commit from which on wazero's main has had [`Revision::CatchClauses`].
    const CATCH_CLAUSES: u32 = 20260521;

    /// The day of the commit from which on it has had [`Revision::Locals`].
    const LOCALS: u32 = 20260624;

    /// Returns the revision of a version of wazero, as wazero itself writes it.
    ///
    /// The version is that of a Go module: a release, or the release that would be next with day and hash of a commit.
    /// Programs that wazero releases leave the `v` out; what stands behind a `+` tells nothing of the layout.
    pub(crate) fn of_wazero(version: &str) -> Self {
        let version = version.strip_prefix('v').unwrap_or(version);
        let version = version.split_once('+').map_or(version, |(version, _)| version);
        let (release, is_release, day) = match version.split_once('-') {
            None => (version, true, None),
            Some((release, pre)) => (release, false, day_of_commit(pre)),
        };
        match (release, day) {
            ("1.12.0", None) if is_release => Self::CatchClauses,
            ("1.12.1", Some(Self::LOCALS..)) => Self::Locals,
            ("1.12.1", Some(_)) | ("1.11.1", Some(Self::CATCH_CLAUSES..Self::LOCALS)) => Self::CatchClauses,
            (_, None | Some(..Self::CATCH_CLAUSES)) if is_before_1_12(release) => Self::SourceMap,
            _ => Self::Unknown,
        }
    }

    /// Returns how the body of an entry is laid out: behind that of a sealed one stands a try table count in any case.
    pub(crate) const fn of_body(self, is_sealed: bool) -> Self {
        match self {
            Self::SourceMap if is_sealed => Self::CatchClauses,
            revision => revision,
        }
    }
}

/// Returns the day of the commit that the end of a version names, as in `0.20260714071631-236c2458ed22`.
fn day_of_commit(pre_release: &str) -> Option<u32> {
    let (time, _commit) = pre_release.strip_prefix("0.")?.split_once('-')?;
    let is_time = time.len() == 14 && time.bytes().all(|digit| digit.is_ascii_digit());
    if is_time { time.get(..8)?.parse().ok() } else { None }
}

fn is_before_1_12(release: &str) -> bool {
    let minor = release.strip_prefix("1.").and_then(|rest| rest.split_once('.'));
    minor.is_some_and(|(minor, patch)| matches!(minor.parse(), Ok(..12_u32)) && patch.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_of_wazero_follows_from_its_version_and_none_from_one_that_nobody_has_seen() {
        for (revision, versions) in [
            (
                Revision::SourceMap,
                &[
                    "v1.0.0",
                    "v1.7.0-pre.1",
                    "v1.9.0",
                    "1.9.0",
                    "v1.9.0+dirty",
                    "v1.9.1-0.20250823171313-481bac90d33f",
                    "v1.10.1",
                    "v1.11.0",
                    "v1.11.0-rc.1",
                    "v1.11.1-0.20260520235959-0123456789ab",
                    "v1.11.7",
                ][..],
            ),
            (
                Revision::CatchClauses,
                &[
                    "v1.11.1-0.20260521072212-475a1f8f0000",
                    "v1.12.0",
                    "1.12.0",
                    "v1.12.0+dirty",
                    "v1.12.1-0.20260529094615-5500f5c25000",
                    "v1.12.1-0.20260622070111-89079b916000+dirty",
                    "v1.12.1-0.20260623235959-0123456789ab",
                ],
            ),
            (
                Revision::Locals,
                &[
                    "v1.12.1-0.20260624061158-5f5f52006a2c",
                    "v1.12.1-0.20260714071631-236c2458ed22",
                    "v1.12.1-0.20260714071631-236c2458ed22+dirty",
                ],
            ),
            (
                Revision::Unknown,
                &[
                    "dev",
                    "236c2458ed22010150de76c5397eca2c89af3b4f",
                    "v1.12.0-rc.1",
                    "v1.12.0-0.20260714071631-236c2458ed22",
                    "v1.12.1",
                    "1.12.1",
                    "v1.12.1+dirty",
                    "v1.12.1-rc.1",
                    "v1.12.1-0.20260714-236c2458ed22",
                    "v1.12.1-0.2026071407163x-236c2458ed22",
                    "v1.12.1-0.20260714071631",
                    "v1.12.1-rc.1.0.20260714071631-236c2458ed22",
                    "v1.12.2-0.20260714071631-236c2458ed22",
                    // The day of one layout behind the release of another: of a branch, or of a copy that has not all
                    // tags.
                    "v1.11.1-0.20260624061158-5f5f52006a2c",
                    "v1.9.1-0.20260521072212-475a1f8f0000",
                    "v1.13.0",
                    "v1.112.0",
                    "v2.0.0",
                    "v2.9.0",
                    "v11.9.0",
                    "v0.0.0-20260714071631-236c2458ed22",
                    "v1.9",
                    "v1.9.x",
                    "v1.9.0.1",
                    "v1.12",
                    "vv1.9.0",
                    "1",
                    "v",
                    "",
                ],
            ),
        ] {
            for version in versions {
                assert_eq!(Revision::of_wazero(version), revision, "{version}");
            }
        }
    }
}
