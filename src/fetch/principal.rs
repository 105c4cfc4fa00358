//! [`Principal`]: for whom something is gathered.

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

    /// Whether registries may be shown what is stored on this host, client certificates among it.
    pub fn has_stored_credentials(&self) -> bool {
        self.supplied.is_none()
    }

    /// Whether the credentials in the URL of a lookaside store may be used: stored ones, which no other replace.
    pub fn has_lookaside_credentials(&self) -> bool {
        self.has_stored_credentials() || !self.is_guarded()
    }
}
