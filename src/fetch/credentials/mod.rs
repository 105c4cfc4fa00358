//! [`Source`]: which containers-auth.json(5) files and credential helpers count, and what they hold for a repository.

mod file;
mod helper;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::config::{self, Environment, RegularFile, User};
use crate::digest::Digest;
use crate::fetch::Error;
use crate::fetch::credentials::file::{Answer, AuthFile, Content, Looked};
use crate::fetch::credentials::helper::NamedIn;

pub use file::NotAcceptable;
pub use helper::{Fault, HELPER_BYTES, HELPER_TIME, Programs};

/// Largest authentication file: 4 MiB, as all configuration (design decision 6).
pub const AUTH_FILE_BYTES: usize = 4 << 20;

/// Where systemd puts what it hands over to the daemon; `LoadCredential=` of its unit, systemd.exec(5).
pub const SERVICE: &str = "/run/credentials/vouchd.service";

/// How the names of authentication files begin there; systemd.exec(5) puts the ID before them.
const SERVICE_PREFIX: &str = "auth_";

/// What `credential-helpers` of registries.conf(5) calls the authentication files (rule U-3).
pub const FILES: &str = "containers-auth.json";

/// Where credentials come from: nowhere, what is stored here, or what a caller supplied (T-25).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Nowhere, whatever registries.conf says.
    #[default]
    Anonymous,
    /// Authentication files of this host, and helpers.
    Stored(Stored),
    /// The contents of an authentication file; no helper is asked (T-24).
    Supplied(Supplied),
}

/// Authentication files of this host, and how helpers are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    files: Files,
    programs: Programs,
}

/// What a caller supplied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supplied {
    content: Content,
    /// Of the file.
    digest: Digest,
}

/// `credential-helpers` of registries.conf(5), in order (rule U-3); an empty list means the files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stores<'a> {
    /// Helpers, and [`FILES`].
    pub names: &'a [String],
    /// The files that say so, or could: helpers run only if nobody else can write them (T-24).
    pub named_in: &'a [PathBuf],
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What the registry may be shown, if there is anything.
    pub credentials: Option<Credentials>,
    /// What the owner of the files should know; no secret.
    pub warnings: Vec<String>,
}

impl Source {
    /// What counts on a command line: `authfile`, else `$REGISTRY_AUTH_FILE`, else `$DOCKER_CONFIG/config.json`, each
    /// alone, else the default files (rule U-1).
    ///
    /// Variables count only where the files of the user do (T-22).
    pub fn of_command_line(
        authfile: Option<PathBuf>,
        environment: &Environment,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let user_files = environment.user.is_some();
        let set = |name: &str| {
            let value = user_files.then(|| variable(name)).flatten();
            value.filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        let programs = Programs::of(environment, &variable);
        if let Some(path) = authfile.or_else(|| set("REGISTRY_AUTH_FILE")) {
            return Self::named(path, programs);
        }
        let files = match set("DOCKER_CONFIG") {
            Some(docker) => Files::Only { file: AuthFile::new(docker.join("config.json")), required: false },
            None => Files::defaults(environment, set("XDG_RUNTIME_DIR")),
        };
        Self::Stored(Stored { files, programs })
    }

    /// With the authentication files that systemd hands over to a service in this directory, before all that are
    /// searched.
    pub fn with_service_files(mut self, directory: PathBuf) -> Self {
        if let Self::Stored(Stored { files: Files::Search { service, .. }, .. }) = &mut self {
            *service = Some(directory);
        }
        self
    }

    /// This authentication file and no other; it must exist (rule U-1).
    pub fn named(path: PathBuf, programs: Programs) -> Self {
        let files = Files::Only { file: AuthFile::new(path), required: true };
        Self::Stored(Stored { files, programs })
    }

    /// The contents of an authentication file that a caller handed over: only literal credentials (T-24).
    pub fn handed_over(bytes: &[u8]) -> Result<Self, NotAcceptable> {
        let content = Content::handed_over(bytes)?;
        Ok(Self::Supplied(Supplied { content, digest: Digest::sha256(bytes) }))
    }

    /// The digest of what a caller supplied, if one did: it tells callers apart and holds no secret (T-25).
    pub fn supplied_digest(&self) -> Option<&Digest> {
        match self {
            Self::Anonymous | Self::Stored(_) => None,
            Self::Supplied(Supplied { digest, .. }) => Some(digest),
        }
    }

    /// The credentials for a repository as the server is asked for it, by host and full name (rules U-5, M-10).
    ///
    /// Reads files and may run helpers: it blocks, but not longer than the deadline if the disk does not.
    pub fn find(&self, repository: &str, stores: Stores<'_>, deadline: Instant) -> Result<Found, Error> {
        let mut found = Found::default();
        match self {
            Self::Anonymous => {}
            Self::Stored(stored) => {
                let wanted = Wanted { repository, host: host(repository), deadline };
                found.credentials = stored.find(&wanted, stores, &mut found.warnings)?;
            }
            Self::Supplied(Supplied { content, .. }) => {
                found.credentials = content.literal(repository).map_err(|fault| Error::AuthFile {
                    path: "handed over".to_owned(),
                    detail: fault.to_string(),
                })?;
            }
        }
        Ok(found)
    }
}

/// What is looked for, and until when.
struct Wanted<'a> {
    repository: &'a str,
    host: &'a str,
    deadline: Instant,
}

impl Stored {
    /// Asks one store after the other; their errors count only if none has an answer (rule U-3).
    fn find(
        &self,
        wanted: &Wanted<'_>,
        stores: Stores<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Credentials>, Error> {
        if stores.names.is_empty() {
            return self.find_in_files(wanted, warnings);
        }
        let mut faults = Vec::new();
        for name in stores.names {
            let found = if name == FILES {
                self.find_in_files(wanted, warnings)
            } else {
                let named_in: Vec<NamedIn<'_>> =
                    stores.named_in.iter().map(|path| NamedIn { path, opened: None }).collect();
                self.programs.ask(name, &named_in, wanted.host, wanted.deadline)
            };
            match found {
                Ok(Some(credentials)) => return Ok(Some(credentials)),
                Ok(None) => {}
                Err(fault) => faults.push(fault),
            }
        }
        match faults.len() {
            0 => Ok(None),
            1 => faults.pop().map_or(Ok(None), Err),
            _ => Err(Error::CredentialStores { faults }),
        }
    }

    /// The first file that has an answer (rule U-2); of those of ostree, the first that exists counts alone.
    fn find_in_files(
        &self,
        wanted: &Wanted<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Credentials>, Error> {
        let (service, runtime, search, ostree) = match &self.files {
            Files::Only { file, required } => {
                return match file.open()? {
                    Looked::Absent if *required => Err(file.error("it does not exist")),
                    Looked::Absent => Ok(None),
                    Looked::Forbidden(error) => Err(file.error(&error.to_string())),
                    Looked::Read { content, metadata } => {
                        self.find_in(file, &content, &metadata, wanted, warnings)
                    }
                };
            }
            Files::Search { service, runtime, files, ostree } => (service, runtime, files, ostree),
        };
        if let Some(directory) = service
            && let Some(found) = find_in_service(directory, wanted)?
        {
            return Ok(Some(found));
        }
        if let Some(runtime) = runtime
            && fs::metadata(runtime).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            warnings.push(format!(
                "the directory \"{}\" of $XDG_RUNTIME_DIR does not exist, so that no credentials are read from there: create it, or unset the variable",
                runtime.display()
            ));
        }
        // A file that nobody named, and that is not for this user, is passed over: the daemon has no business with
        // those of root.
        for file in search {
            if let Looked::Read { content, metadata } = file.open()?
                && let Some(found) = self.find_in(file, &content, &metadata, wanted, warnings)?
            {
                return Ok(Some(found));
            }
        }
        for file in ostree {
            match file.open()? {
                Looked::Absent => {}
                Looked::Forbidden(_) => return Ok(None),
                Looked::Read { content, metadata } => {
                    return self.find_in(file, &content, &metadata, wanted, warnings);
                }
            }
        }
        Ok(None)
    }

    /// The answer of one file; that of a helper that it names is its own (rule U-4).
    fn find_in(
        &self,
        file: &AuthFile,
        content: &Content,
        metadata: &fs::Metadata,
        wanted: &Wanted<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Credentials>, Error> {
        warnings.extend(file.warning(metadata));
        match content.find(file, wanted.repository, wanted.host)? {
            Answer::Helper(name) => {
                let named_in = NamedIn { path: file.path(), opened: Some(metadata) };
                self.programs.ask(name, &[named_in], wanted.host, wanted.deadline)
            }
            Answer::Literal(credentials) => Ok(credentials),
        }
    }
}

/// The answer of the first file, by name, that has one. No helper is asked: the files are not where they were, so that
/// nobody can tell who wrote them (T-24).
fn find_in_service(directory: &Path, wanted: &Wanted<'_>) -> Result<Option<Credentials>, Error> {
    let failed = |path: &Path, detail: String| Error::AuthFile { path: shown(path), detail };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // Started by hand, or by somebody who is not the service.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(directory, error.to_string())),
    };
    let mut paths = Vec::new();
    for entry in entries.take(config::FILES) {
        let path = entry.map_err(|error| failed(directory, error.to_string()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(SERVICE_PREFIX) && name.ends_with(".json") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    for path in paths {
        let read = RegularFile::open(&path).and_then(|file| file.read(AUTH_FILE_BYTES));
        let bytes = read.map_err(|error| failed(&path, error.to_string()))?;
        let content = Content::handed_over(&bytes).map_err(|error| failed(&path, error.to_string()))?;
        let found = content.literal(wanted.repository);
        if let Some(found) = found.map_err(|fault| failed(&path, fault.to_string()))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Which authentication files count.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Files {
    /// One, because somebody said so.
    Only { file: AuthFile, required: bool },
    /// The first that knows the repository; absent files are passed over.
    Search {
        /// The directory with those that systemd hands over.
        service: Option<PathBuf>,
        /// `$XDG_RUNTIME_DIR`, if it counts.
        runtime: Option<PathBuf>,
        files: Vec<AuthFile>,
        /// The first of these that exists comes last and counts alone.
        ostree: Vec<AuthFile>,
    },
}

impl Files {
    /// The files of rule U-2 in order, and for the system those of ostree after them; ostree-container-auth(5).
    fn defaults(environment: &Environment, runtime: Option<PathBuf>) -> Self {
        let system = |path: &str| environment.root.join(path.trim_start_matches('/'));
        let is_root = environment.uid == 0;
        let primary = match &runtime {
            Some(directory) => directory.join("containers"),
            None => system(&format!("/run/containers/{}", environment.uid)),
        };
        let mut files = vec![AuthFile::new(primary.join("auth.json"))];
        match &environment.user {
            // In a session of root, podman writes below that session's directory.
            None if is_root => files.push(AuthFile::new(system("/run/user/0/containers/auth.json"))),
            None => {}
            Some(User { home, xdg_config_home, .. }) => {
                let config = xdg_config_home.clone().unwrap_or_else(|| home.join(".config"));
                files.extend([
                    AuthFile::new(config.join("containers/auth.json")),
                    AuthFile::new(home.join(".docker/config.json")),
                    AuthFile::legacy(home.join(".dockercfg")),
                ]);
            }
        }
        let directories =
            if is_root { ["/run/ostree", "/etc/ostree", "/usr/lib/ostree"].as_slice() } else { &[] };
        let ostree =
            directories.iter().map(|directory| AuthFile::new(system(directory).join("auth.json"))).collect();
        Self::Search { service: None, runtime, files, ostree }
    }
}

/// What a registry may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user, possibly empty.
    pub user: String,
    /// The password, possibly empty.
    pub password: Secret,
    /// A refresh token, used instead of the password where there is one (rule H-3).
    pub identity_token: Option<Secret>,
}

impl Credentials {
    /// Tells apart what was obtained with different credentials (T-25).
    pub(in crate::fetch) fn fingerprint(&self) -> Digest {
        let token = self.identity_token.as_ref().map(Secret::expose).unwrap_or_default();
        let parts = [self.user.as_str(), self.password.expose(), token];
        let framed: String = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
        Digest::sha256(framed.as_bytes())
    }

    /// Itself, unless nothing is in it.
    fn if_any(self) -> Option<Self> {
        let empty =
            self.user.is_empty() && self.password.expose().is_empty() && self.identity_token.is_none();
        (!empty).then_some(self)
    }
}

/// A text that no output shows.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, to be sent and not to be printed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The registry of a repository.
fn host(repository: &str) -> &str {
    repository.split('/').next().unwrap_or_default()
}

/// A path as an error shows it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Rule T-25.
    #[test]
    fn fingerprints_tell_credentials_apart() {
        let credentials = |user: &str, password: &str, token: Option<&str>| Credentials {
            user: user.into(),
            password: Secret::new(password.into()),
            identity_token: token.map(|t| Secret::new(t.into())),
        };
        let all = [
            credentials("a", "bc", None),
            credentials("ab", "c", None),
            credentials("a", "b", Some("c")),
            credentials("a", "b", None),
        ];
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert_eq!(a.fingerprint() == b.fingerprint(), i == j);
            }
        }
        assert!(!format!("{:?}", credentials("a", "hunter2", Some("hunter2"))).contains("hunter2"));
    }
}
