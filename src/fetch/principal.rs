//! [`Principal`]: for whom something is gathered.

use crate::digest::Digest;
use crate::fetch::credentials::Source;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// Root, or whoever runs this process.
    Owner,
    /// Another user, by uid, who must not reach by way of this process what that user could not reach alone.
    User(u32),
}

/// For whom something is gathered: what registries may be shown, and where connections may lead (T-25, T-29).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who asks.
    pub asker: Asker,
    /// The caller's own credentials, in place of those of this host.
    pub supplied: Option<Source>,
}

/// Principals for whom the same would be gathered (T-25).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrincipalClass {
    is_guarded: bool,
    /// Nothing for what is stored on this host, else what was supplied, if anything was.
    supplied: Option<Option<Digest>>,
}

impl Principal {
    /// Root, or whoever runs this process, with the credentials of this host.
    pub const OWNER: Self = Self { asker: Asker::Owner, supplied: None };

    /// Whether connections lead only where the network of this host has no secrets.
    pub fn is_guarded(&self) -> bool {
        match self.asker {
            Asker::Owner => false,
            Asker::User(_) => true,
        }
    }

    /// What tells apart for whom something was gathered.
    pub fn class(&self) -> PrincipalClass {
        let supplied = self.supplied.as_ref().map(|source| source.supplied_digest().cloned());
        PrincipalClass { is_guarded: self.is_guarded(), supplied }
    }

    /// Whether registries may be shown what is stored on this host, client certificates among it.
    pub fn has_stored_credentials(&self) -> bool {
        self.supplied.is_none()
    }

    /// Whether the credentials in the URL of a lookaside store may be used: stored ones, which no other replace.
    pub fn has_lookaside_credentials(&self) -> bool {
        self.has_stored_credentials() || !self.is_guarded()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Rule T-25.
    #[test]
    fn principals_are_told_apart_by_what_they_may_show_and_reach() {
        let supplied = |auth: &str| {
            let file = format!("{{\"auths\":{{\"h\":{{\"auth\":\"{auth}\"}}}}}}");
            Some(Source::handed_over(file.as_bytes()).unwrap())
        };
        let sources = [None, Some(Source::Anonymous), supplied("dTpw"), supplied("dTpx")];
        let mut all = Vec::new();
        for asker in [Asker::Owner, Asker::User(1)] {
            all.extend(sources.clone().map(|supplied| Principal { asker, supplied }));
        }
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert_eq!(one.class() == other.class(), i == j, "{one:?} {other:?}");
            }
        }
        let other = Principal { asker: Asker::User(2), supplied: None };
        assert_eq!(other.class(), Principal { asker: Asker::User(1), supplied: None }.class());
        assert!(!format!("{:?}", all[2].class()).contains("dTpw"));
    }
}
