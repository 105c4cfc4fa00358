//! [`AuthFile`]: one containers-auth.json(5) file and what it says.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::RegularFile;
use crate::diagnostic::{Code, Position, Span};
use crate::fetch::Error;
use crate::fetch::credentials::{AUTH_FILE_BYTES, Credentials, Secret, host, shown};
use crate::json::{self, Data, Limits, Member, Value};

/// A file to look for credentials in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AuthFile {
    path: PathBuf,
    /// Whether the whole file is what `auths` is elsewhere, as in `~/.dockercfg`.
    legacy: bool,
}

/// What is at the path of a file.
pub(super) enum Looked {
    /// Nothing.
    Absent,
    /// Something that this process may not read, or a directory that it may not look into.
    Forbidden(io::Error),
    /// The file.
    Read { content: Content, metadata: Box<Metadata> },
}

impl AuthFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, legacy: false }
    }

    /// `~/.dockercfg` or one like it (rule U-2).
    pub(super) fn legacy(path: PathBuf) -> Self {
        Self { path, legacy: true }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file.
    pub(super) fn open(&self) -> Result<Looked, Error> {
        let unreadable = |e: io::Error| self.error(&e.to_string());
        let file = match RegularFile::find(&self.path) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(Looked::Absent),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(Looked::Forbidden(e)),
            Err(e) => return Err(unreadable(e)),
        };
        let bytes = file.read(AUTH_FILE_BYTES).map_err(unreadable)?;
        let content = Content::parse(&bytes, self.legacy).map_err(|e| self.error(&e.to_string()))?;
        Ok(Looked::Read { content, metadata: Box::new(file.metadata().clone()) })
    }

    /// What is wrong with the permissions, and how to mend it. The credentials count all the same.
    pub(super) fn warning(&self, metadata: &Metadata) -> Option<String> {
        let mode = metadata.permissions().mode();
        let what = match (metadata.is_file(), mode & WRITABLE_BY_OTHERS != 0, mode & READABLE_BY_ALL != 0) {
            (false, _, _) | (true, false, false) => return None,
            (true, true, false) => "can be changed by others than its owner",
            (true, false, true) => "can be read by everybody",
            (true, true, true) => "can be changed by others than its owner and read by everybody",
        };
        let path = shown(&self.path);
        Some(format!("the authentication file \"{path}\" {what}: run chmod go-w,o-r \"{path}\""))
    }

    pub(super) fn error(&self, detail: &str) -> Error {
        Error::AuthFile { path: shown(&self.path), detail: detail.to_owned() }
    }
}

/// What an authentication file says; everything else is ignored, `credsStore` as well (rule U-4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    auths: BTreeMap<String, Entry>,
    helpers: BTreeMap<String, String>,
    legacy: bool,
}

/// What one file says of a repository.
pub(super) enum Answer<'a> {
    /// Ask this helper.
    Helper(&'a str),
    /// This, or nothing.
    Literal(Option<Credentials>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    auth: Secret,
    identity_token: Secret,
}

impl Content {
    fn parse(bytes: &[u8], legacy: bool) -> Result<Self, Malformed> {
        Self::of(&Tree::parse(bytes)?, legacy)
    }

    fn of(tree: &Tree<'_>, legacy: bool) -> Result<Self, Malformed> {
        let mut content = Self { auths: BTreeMap::new(), helpers: BTreeMap::new(), legacy };
        let auths = if legacy { tree.object(&tree.top)?.iter().collect() } else { tree.objects("auths")? };
        for Member { key, value, .. } in auths {
            let entry = Entry {
                auth: Secret::new(tree.text(value, "auth")?),
                identity_token: Secret::new(tree.text(value, "identitytoken")?),
            };
            content.auths.insert(key.clone().into_owned(), entry);
        }
        if !legacy {
            for Member { key, value, .. } in tree.objects("credHelpers")? {
                content.helpers.insert(key.clone().into_owned(), tree.string(value)?.to_owned());
            }
        }
        Ok(content)
    }

    /// Helpers run with the rights of this process, so that a caller may not name them (T-24).
    pub(super) fn handed_over(bytes: &[u8]) -> Result<Self, NotAcceptable> {
        if bytes.len() > AUTH_FILE_BYTES {
            return Err(NotAcceptable::TooLarge);
        }
        let tree = Tree::parse(bytes)?;
        let content = Self::of(&tree, false)?;
        if !content.helpers.is_empty() {
            return Err(NotAcceptable::CredentialHelpers);
        }
        let is_nothing = |value: &Value<'_>| value.is_null() || value.text() == Some("");
        let mut stores = tree.members("credsStore")?;
        if stores.any(|store| !is_nothing(&store.value)) {
            return Err(NotAcceptable::CredentialStore);
        }
        Ok(content)
    }

    /// The helper of the host, or else what stands here (rule U-4).
    pub(super) fn find(&self, file: &AuthFile, repository: &str, host: &str) -> Result<Answer<'_>, Error> {
        if let Some(helper) = self.helpers.get(host) {
            return Ok(Answer::Helper(helper));
        }
        let found = self.literal(repository).map_err(|fault| file.error(&fault.to_string()))?;
        Ok(Answer::Literal(found))
    }

    /// The entry of `repository`, of the nearest namespace above it, or of its host (rules U-4, U-5).
    pub(super) fn literal(&self, repository: &str) -> Result<Option<Credentials>, NotBase64> {
        let host = host(repository);
        let namespaces = std::iter::successors(Some(repository), |key| Some(key.rsplit_once('/')?.0));
        let exact = namespaces.filter(|key| !self.legacy || *key == host).find_map(|key| self.auths.get(key));
        let normalised = || {
            let mut entries = self.auths.iter();
            entries.find(|(key, _)| entry_host(key, self.legacy) == one_docker_io(host)).map(|(_, e)| e)
        };
        exact.or_else(normalised).map_or(Ok(None), Entry::decode)
    }
}

impl Entry {
    /// `auth` is base64 of `user:password`; without a colon the entry counts as empty (rule U-4).
    fn decode(&self) -> Result<Option<Credentials>, NotBase64> {
        let decoded = json::decode_base64(self.auth.expose()).ok_or(NotBase64)?;
        if !decoded.contains(&b':') {
            return Ok(None);
        }
        let decoded = String::from_utf8(decoded).map_err(|_| NotBase64)?;
        let Some((user, password)) = decoded.split_once(':') else { return Ok(None) };
        let credentials = Credentials {
            user: user.to_owned(),
            password: Secret::new(password.trim_matches('\0').to_owned()),
            identity_token: Some(self.identity_token.clone()).filter(|token| !token.expose().is_empty()),
        };
        Ok(credentials.if_any())
    }
}

/// An `auth` member that cannot be decoded.
pub(super) struct NotBase64;

impl fmt::Display for NotBase64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an \"auth\" member is not base64 of text")
    }
}

/// Why the contents of an authentication file cannot be taken from a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotAcceptable {
    /// It names credential helpers (T-24).
    CredentialHelpers,
    /// It names a credential store (T-24).
    CredentialStore,
    /// It is no authentication file.
    Malformed {
        /// Where.
        position: Position,
        /// What is wrong; no text of the file.
        reason: &'static str,
    },
    /// It is larger than [`AUTH_FILE_BYTES`].
    TooLarge,
    /// It is not a file that can be read without waiting for somebody (T-27).
    Unreadable(String),
}

impl NotAcceptable {
    /// The stable name of the cause.
    pub fn code(&self) -> Code {
        Code::Usage
    }
}

impl From<Malformed> for NotAcceptable {
    fn from(Malformed { position, reason }: Malformed) -> Self {
        Self::Malformed { position, reason }
    }
}

impl fmt::Display for NotAcceptable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CredentialHelpers => {
                f.write_str("the authentication file has \"credHelpers\": only \"auths\" can be handed over")
            }
            Self::CredentialStore => {
                f.write_str("the authentication file has a \"credsStore\": only \"auths\" can be handed over")
            }
            Self::Malformed { position, reason } => {
                let malformed = Malformed { position: *position, reason };
                write!(f, "the authentication file cannot be used: {malformed}")
            }
            Self::TooLarge => {
                write!(f, "the authentication file is larger than {AUTH_FILE_BYTES} bytes")
            }
            Self::Unreadable(detail) => write!(f, "the authentication file cannot be read: {detail}"),
        }
    }
}

/// Where a text is not what it should be. It shows no word of the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    position: Position,
    reason: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position;
        write!(f, "line {line} column {column}: {}", self.reason)
    }
}

/// JSON that is read as the reference's decoder does: names in any case, of several the last, and `null` is nothing.
pub(super) struct Tree<'a> {
    bytes: &'a [u8],
    pub(super) top: Value<'a>,
}

impl<'a> Tree<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let malformed = |e: json::Error| Malformed { position: e.span.position(bytes), reason: e.reason };
        Ok(Self { bytes, top: json::parse(bytes, LIMITS).map_err(malformed)? })
    }

    /// The text of that member of an object, empty if there is none.
    pub(super) fn text(&self, object: &Value<'a>, name: &str) -> Result<String, Malformed> {
        let mut text = "";
        for member in self.object(object)?.iter().filter(|member| json::folds(&member.key, name)) {
            if !member.value.is_null() {
                text = self.string(&member.value)?;
            }
        }
        Ok(text.to_owned())
    }

    /// The members of that name at the top.
    fn members(&self, name: &str) -> Result<impl Iterator<Item = &Member<'a>>, Malformed> {
        Ok(self.object(&self.top)?.iter().filter(move |member| json::folds(&member.key, name)))
    }

    /// The members of the objects of that name.
    fn objects(&self, name: &str) -> Result<Vec<&Member<'a>>, Malformed> {
        let mut members = Vec::new();
        for member in self.members(name)? {
            members.extend(self.object(&member.value)?);
        }
        Ok(members)
    }

    fn object<'b>(&self, value: &'b Value<'a>) -> Result<&'b [Member<'a>], Malformed> {
        match &value.data {
            Data::Null => Ok(&[]),
            Data::Object(members) => Ok(members),
            Data::Array(_) | Data::Bool(_) | Data::Number(_) | Data::String(_) => {
                Err(self.malformed(value.span, "an object is wanted here"))
            }
        }
    }

    fn string<'b>(&self, value: &'b Value<'_>) -> Result<&'b str, Malformed> {
        match &value.data {
            Data::Null => Ok(""),
            Data::String(text) => Ok(text),
            Data::Array(_) | Data::Bool(_) | Data::Number(_) | Data::Object(_) => {
                Err(self.malformed(value.span, "a string is wanted here"))
            }
        }
    }

    fn malformed(&self, span: Span, reason: &'static str) -> Malformed {
        Malformed { position: span.position(self.bytes), reason }
    }
}

/// The host that a key of `auths` is for: a key with a scheme, or of a legacy file, may be a URL (rule U-4).
fn entry_host(key: &str, legacy: bool) -> &str {
    let rest = key.strip_prefix("http://").unwrap_or(key);
    let rest = rest.strip_prefix("https://").unwrap_or(rest);
    let is_url = legacy || rest.len() != key.len();
    one_docker_io(if is_url { host(rest) } else { rest })
}

/// One name for the registry of Docker Hub, which has three (rule U-4).
fn one_docker_io(host: &str) -> &str {
    match host {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        _ => host,
    }
}

/// As for other JSON from outside.
const LIMITS: Limits = Limits { depth: 64, values: 100_000 };

/// Permission bits; inode(7).
const WRITABLE_BY_OTHERS: u32 = 0o022;
const READABLE_BY_ALL: u32 = 0o004;
