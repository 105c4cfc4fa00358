//! [`Named`] and [`ImageReference`]: image names, normalised once and compared as typed parts ever after.
//!
//! Parsing is pure. A name that holds a path becomes an [`ImageReference`] only when somebody who may
//! touch the file system says where the path leads ([`ImageName::into_reference`]).

use std::fmt;

use crate::digest::{Digest, is_lower_hex};

/// Largest image name accepted: 1 KiB, from design decision 6; names of the grammar are shorter.
pub const REFERENCE_BYTES: usize = 1 << 10;

/// Largest repository name, without tag and digest: 255 bytes (rule R-8).
const NAME_BYTES: usize = 255;

/// Why a text is no image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Both a tag and a digest, where the transport wants one of them.
    #[error("a docker reference may have a tag or a digest, not both")]
    BothTagAndDigest,
    /// The digest is not of a known form.
    #[error(
        "the digest after \"@\" must be sha256, sha384 or sha512 and lower-case hexadecimal of full length"
    )]
    Digest,
    /// 64 hexadecimal digits name an image ID, never a repository.
    #[error("64 hexadecimal digits are an image ID, not a name")]
    Identifier,
    /// The image part of an OCI layout name is not valid.
    #[error("{0:?} is not a valid image name in a layout")]
    LayoutImage(String),
    /// The name is longer than 255 bytes, or the whole longer than 1 KiB.
    #[error("the name is too long")]
    Long,
    /// The text before the tag is not a repository name.
    #[error("it is not a repository name: lower-case letters, digits and single separators, parted by \"/\"")]
    Repository,
    /// The rest of the name does not fit its transport.
    #[error("it does not have the form {0}")]
    Shape(&'static str),
    /// The tag is not valid.
    #[error(
        "the tag must be letters, digits, \"_\", \".\" and \"-\", at most 128, not beginning with \".\" or \"-\""
    )]
    Tag,
    /// The text before the first colon is no transport.
    #[error("it does not begin with a known transport such as \"docker://\"")]
    Transport,
    /// Upper case in the repository path.
    #[error("the repository path must be lower case")]
    UpperCase,
}

impl Error {
    /// How a name of that kind is written.
    pub fn help(&self) -> &'static str {
        match self {
            Self::BothTagAndDigest => "leave the tag out: the digest says exactly which image is meant",
            Self::Digest => "write the whole digest, such as @sha256: and 64 digits",
            Self::Identifier => "name the image by repository, and by tag or digest",
            Self::LayoutImage(_) => "name an image as its layout does, or write :@ and its number from 0",
            Self::Long | Self::Repository | Self::Tag | Self::UpperCase => {
                "correct the name; see containers-transports(5)"
            }
            Self::Shape(_) => "write the name in that form; see containers-transports(5)",
            Self::Transport => {
                "write where the image is: docker://HOST/NAME for a registry, dir:PATH or oci:PATH for a directory; see containers-transports(5)"
            }
        }
    }
}

/// A repository name with optional tag and digest, fully expanded (rules R-1 to R-10).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Named {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Named {
    /// Reads a name as a user types it: `busybox` means `docker.io/library/busybox`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() == 64 && is_lower_hex(text) {
            return Err(Error::Identifier);
        }
        if text.len() > REFERENCE_BYTES {
            return Err(Error::Long);
        }
        let (domain, remainder) = split_domain(text);
        let before_tag = remainder.split(':').next().unwrap_or_default();
        if before_tag.chars().any(char::is_uppercase) {
            return Err(Error::UpperCase);
        }
        let library = if domain == "docker.io" && !remainder.contains('/') { "library/" } else { "" };
        // Rule R-9: a first part that is no host may still be the first part of a path.
        let (domain, rest) = if is_domain(domain) {
            (domain, format!("{library}{remainder}"))
        } else {
            ("", format!("{domain}/{remainder}"))
        };
        let path_end = rest.find([':', '@']).unwrap_or(rest.len());
        let (path, suffix) = rest.split_at(path_end);
        if !is_path(path) {
            return Err(Error::Repository);
        }
        let (tag, digest) = match suffix.strip_prefix(':') {
            Some(tagged) => match tagged.split_once('@') {
                Some((tag, digest)) => (Some(tag), Some(digest)),
                None => (Some(tagged), None),
            },
            None => (None, suffix.strip_prefix('@')),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(Error::Tag);
        }
        let digest = digest.map(|d| Digest::parse(d).ok_or(Error::Digest)).transpose()?;
        let named =
            Self { domain: domain.to_owned(), path: path.to_owned(), tag: tag.map(str::to_owned), digest };
        if named.name().len() > NAME_BYTES {
            return Err(Error::Long);
        }
        Ok(named)
    }

    /// As [`Named::parse`], but the text must already be the canonical form (rule R-11).
    pub fn parse_canonical(text: &str) -> Option<Self> {
        Self::parse(text).ok().filter(|named| named.to_string() == text)
    }

    /// Host with optional port; empty for the rare names of rule R-9.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry, without tag and digest.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The repository: domain and path.
    pub fn name(&self) -> String {
        if self.domain.is_empty() { self.path.clone() } else { format!("{}/{}", self.domain, self.path) }
    }

    /// Whether two names are of the same repository.
    pub fn same_repository(&self, other: &Self) -> bool {
        self.domain == other.domain && self.path == other.path
    }

    /// Whether there is neither tag nor digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// The name with tag `latest` if there is neither tag nor digest (rule R-12).
    pub fn with_default_tag(mut self) -> Self {
        if self.is_name_only() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// The same repository at `digest`, without a tag.
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { domain: self.domain.clone(), path: self.path.clone(), tag: None, digest: Some(digest) }
    }

    /// The short form that users type, without `docker.io/` and `library/` (rule R-10).
    pub fn familiar(&self) -> String {
        let name = match self.domain.as_str() {
            "docker.io" => match self.path.strip_prefix("library/") {
                Some(rest) if !rest.contains('/') => rest.to_owned(),
                Some(_) | None => self.path.clone(),
            },
            _ => self.name(),
        };
        self.suffixed(name)
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }

    /// The scopes above this image, most specific first: repository, parents, host, wildcards (rules S-3, S-4).
    pub fn namespaces(&self) -> Vec<String> {
        let mut scopes = parents(&self.name());
        let host = scopes.last().map(String::as_str).unwrap_or_default();
        let mut host = host.split(':').next().unwrap_or_default().to_owned();
        while let Some((_, rest)) = host.split_once('.') {
            scopes.push(format!("*.{rest}"));
            host = rest.to_owned();
        }
        scopes
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

/// A name, then the name shortened by one `/` part at a time.
fn parents(name: &str) -> Vec<String> {
    let mut scopes = vec![name.to_owned()];
    let mut rest = name;
    while let Some((parent, _)) = rest.rsplit_once('/') {
        scopes.push(parent.to_owned());
        rest = parent;
    }
    scopes
}

/// Rule R-2: the text before the first `/` is a host if it has a `.` or `:` or is `localhost`.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (if first == "index.docker.io" { "docker.io" } else { first }, rest)
        }
        Some(_) | None => ("docker.io", text),
    }
}

/// Rule R-3: labels joined by `.`, then an optional `:` and digits.
pub fn is_domain(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(digits)
}

/// Rule R-4: components joined by `/`.
pub fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// Rule R-4: runs of `[a-z0-9]` joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes.split(alphanumeric).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

/// Rule R-5: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`, ASCII only.
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// How an image is stored and named; containers-transports(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// `atomic:`, an OpenShift registry (deprecated).
    Atomic,
    /// `containers-storage:`, the store of podman, buildah and CRI-O.
    ContainersStorage,
    /// `dir:`, a directory with one image.
    Dir,
    /// `docker://`, a registry.
    Docker,
    /// `docker-archive:`, a file made by `docker save`.
    DockerArchive,
    /// `docker-daemon:`, the store of a Docker daemon.
    DockerDaemon,
    /// `oci:`, an OCI image layout.
    Oci,
    /// `oci-archive:`, an OCI image layout in a tar file.
    OciArchive,
    /// `ostree:`, an image in an OSTree repository, which the reference no longer has.
    Ostree,
    /// `sif:`, a Singularity image file.
    Sif,
    /// `tarball:`, layers in tar files.
    Tarball,
}

impl Transport {
    /// Every transport.
    pub const ALL: &[Self] = &[
        Self::Atomic,
        Self::ContainersStorage,
        Self::Dir,
        Self::Docker,
        Self::DockerArchive,
        Self::DockerDaemon,
        Self::Oci,
        Self::OciArchive,
        Self::Ostree,
        Self::Sif,
        Self::Tarball,
    ];

    /// The name in image names and in policy.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Atomic => "atomic",
            Self::ContainersStorage => "containers-storage",
            Self::Dir => "dir",
            Self::Docker => "docker",
            Self::DockerArchive => "docker-archive",
            Self::DockerDaemon => "docker-daemon",
            Self::Oci => "oci",
            Self::OciArchive => "oci-archive",
            Self::Ostree => "ostree",
            Self::Sif => "sif",
            Self::Tarball => "tarball",
        }
    }

    /// The transport of that name; names are case-sensitive.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.name() == name)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which image of an OCI layout or of an archive is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutImage {
    /// The only one.
    Only,
    /// The one annotated with this `org.opencontainers.image.ref.name`; in a Docker archive, the one with this tag.
    Named(String),
    /// The one at this place of `index.json` or `manifest.json`, from 0.
    Index(u64),
}

/// The graph driver and root of a containers-storage store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Name of the graph driver, such as `overlay`.
    pub driver: String,
    /// Absolute path of the graph root.
    pub root: String,
    /// Directories that hold images, in the order of the search.
    pub images: Vec<String>,
}

/// Part of an image ID that a name of containers-storage may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShortId {
    /// Between the last `@` and the end, where nothing else is possible.
    After(String),
    /// The whole text, which is a name if no image has such an ID.
    Whole(String),
}

impl ShortId {
    /// The digits.
    pub fn text(&self) -> &str {
        match self {
            Self::After(text) | Self::Whole(text) => text,
        }
    }
}

/// An image as the user names it: syntax checked, paths not looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    text: String,
    parts: Parts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Parts {
    Atomic(Named),
    Dir(String),
    Docker(Named),
    DockerArchive { path: String, image: LayoutImage, named: Option<Named> },
    DockerDaemonId,
    DockerDaemonNamed(Named),
    Layout { transport: Transport, path: String, image: LayoutImage },
    Ostree { repository: String, image: String },
    Sif(String),
    Storage { store: Option<StoreText>, named: Option<Named>, id: Option<String>, short: Option<ShortId> },
    Tarball(Vec<String>),
}

/// A store as written between brackets; a part left out is the host's default.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StoreText {
    driver: Option<String>,
    root: String,
    images: Vec<String>,
}

/// What must be looked up before a name is a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// Nothing.
    Nothing,
    /// Where this path leads: absolute, symbolic links resolved (rule S-13).
    Path(&'a str),
    /// Where this path leads without a look at the file system: absolute, links and all.
    File(&'a str),
    /// That each of these files can be opened.
    Files(&'a [String]),
    /// As [`Lookup::Path`]; [`OSTREE_REPOSITORY`] need not be there.
    Repository(&'a str),
    /// Which store is meant; the parts that the name gives.
    Store {
        /// The graph driver, if given.
        driver: Option<&'a str>,
        /// The graph root, if given.
        root: Option<&'a str>,
        /// Further directories of images that the name gives.
        images: &'a [String],
        /// What may be the beginning of the ID of an image in that store.
        short: Option<&'a ShortId>,
    },
}

/// The answer to a [`Lookup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing was asked.
    Nothing,
    /// The resolved path.
    Path(String),
    /// The store, and the ID of the only image that has such a one.
    Store(Store, Option<String>),
}

impl ImageName {
    /// Reads `transport:rest`; containers-transports(5).
    ///
    /// `oci://HOST/REPOSITORY`, as Helm and ORAS write, and `registry:HOST/REPOSITORY`, as ostree writes,
    /// are the same as `docker://HOST/REPOSITORY`. Without a host, `registry:2` is a short name with a tag.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > REFERENCE_BYTES {
            return Err(Error::Long);
        }
        let (transport, rest) = text.split_once(':').ok_or(Error::Transport)?;
        if transport == "registry" && rest.split_once('/').is_some_and(|(host, _)| is_host(host)) {
            return Self::parse(&format!("docker://{rest}"));
        }
        let transport = Transport::from_name(transport).ok_or(Error::Transport)?;
        let parts = match transport {
            Transport::Atomic => parse_atomic(rest)?,
            Transport::ContainersStorage => parse_storage(rest)?,
            Transport::Dir => Parts::Dir(rest.to_owned()),
            Transport::Docker => parse_docker(rest)?,
            Transport::DockerArchive => parse_docker_archive(rest)?,
            Transport::DockerDaemon => parse_docker_daemon(rest)?,
            Transport::Oci if is_registry_url(rest) => parse_docker(rest)?,
            Transport::Oci | Transport::OciArchive => parse_layout(transport, rest)?,
            Transport::Ostree => parse_ostree(rest)?,
            Transport::Sif => Parts::Sif(rest.to_owned()),
            Transport::Tarball => Parts::Tarball(rest.split(':').map(str::to_owned).collect()),
        };
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The transport.
    pub fn transport(&self) -> Transport {
        match &self.parts {
            Parts::Atomic(_) => Transport::Atomic,
            Parts::Dir(_) => Transport::Dir,
            Parts::Docker(_) => Transport::Docker,
            Parts::DockerArchive { .. } => Transport::DockerArchive,
            Parts::DockerDaemonId | Parts::DockerDaemonNamed(_) => Transport::DockerDaemon,
            Parts::Layout { transport, .. } => *transport,
            Parts::Ostree { .. } => Transport::Ostree,
            Parts::Sif(_) => Transport::Sif,
            Parts::Storage { .. } => Transport::ContainersStorage,
            Parts::Tarball(_) => Transport::Tarball,
        }
    }

    /// What must be looked up first.
    pub fn lookup(&self) -> Lookup<'_> {
        match &self.parts {
            Parts::Dir(path) | Parts::Sif(path) | Parts::Layout { path, .. } => Lookup::Path(path),
            Parts::DockerArchive { path, .. } => Lookup::File(path),
            Parts::Ostree { repository, .. } => Lookup::Repository(repository),
            Parts::Storage { store, short, .. } => Lookup::Store {
                driver: store.as_ref().and_then(|s| s.driver.as_deref()),
                root: store.as_ref().map(|s| s.root.as_str()),
                images: store.as_ref().map(|s| s.images.as_slice()).unwrap_or_default(),
                short: short.as_ref(),
            },
            Parts::Tarball(files) => Lookup::Files(files),
            Parts::Atomic(_) | Parts::Docker(_) | Parts::DockerDaemonId | Parts::DockerDaemonNamed(_) => {
                Lookup::Nothing
            }
        }
    }

    /// The reference, given what [`ImageName::lookup`] asked for; nothing if the answer is to another question.
    pub fn into_reference(self, found: Found) -> Option<ImageReference> {
        let transport = self.transport();
        let Self { text, parts } = self;
        let (identity, namespaces, named, place) = match (parts, found) {
            (
                Parts::Atomic(named) | Parts::Docker(named) | Parts::DockerDaemonNamed(named),
                Found::Nothing,
            ) => {
                let place = if transport == Transport::Docker { Place::Registry } else { Place::Elsewhere };
                (named.to_string(), named.namespaces(), Some(named), place)
            }
            (Parts::Dir(_), Found::Path(path)) => {
                (path.clone(), path_namespaces(&path, false), None, Place::Dir(path))
            }
            (Parts::DockerArchive { image, named, .. }, Found::Path(path)) => {
                (String::new(), Vec::new(), named, Place::DockerArchive { path, image })
            }
            (Parts::DockerDaemonId | Parts::Tarball(_), Found::Nothing) => {
                (String::new(), Vec::new(), None, Place::Elsewhere)
            }
            (Parts::Layout { image, .. }, Found::Path(path)) => {
                let (identity, namespaces) = (path.clone(), path_namespaces(&path, true));
                let place = if transport == Transport::Oci {
                    Place::Layout { path, image }
                } else {
                    Place::OciArchive { path, image }
                };
                (identity, namespaces, None, place)
            }
            (Parts::Ostree { image, .. }, Found::Path(path)) => {
                let (identity, namespaces) = ostree_scopes(&path, &image);
                (identity, namespaces, None, Place::Elsewhere)
            }
            (Parts::Sif(_), Found::Path(path)) => {
                (path.clone(), path_namespaces(&path, false), None, Place::Elsewhere)
            }
            (Parts::Storage { named, id, short, .. }, Found::Store(store, found)) => {
                let (named, id) = match (short, found) {
                    (Some(ShortId::After(_)), None) => return None,
                    (Some(ShortId::Whole(_)), Some(id)) => (None, Some(id)),
                    (Some(ShortId::After(_)), Some(id)) => (named, Some(id)),
                    (Some(ShortId::Whole(_)) | None, _) => (named, id),
                };
                if named.is_none() && id.is_none() {
                    return None;
                }
                let (identity, namespaces) = storage_scopes(&store, named.as_ref(), id.as_deref());
                (identity, namespaces, named, Place::Storage { store, id, known: None })
            }
            (_, Found::Nothing | Found::Path(_) | Found::Store(..)) => return None,
        };
        Some(ImageReference { text, transport, identity, namespaces, named, place })
    }
}

/// `//host/…` with something that can be a host, as opposed to a path that begins with two slashes.
fn is_registry_url(rest: &str) -> bool {
    rest.strip_prefix("//").and_then(|r| r.split_once('/')).is_some_and(|(host, _)| is_host(host))
}

/// Whether the first part of a name is a host for certain.
fn is_host(first: &str) -> bool {
    is_domain(first) && (first.contains(['.', ':']) || first == "localhost")
}

/// Rule S-2.
fn parse_docker(rest: &str) -> Result<Parts, Error> {
    let name = rest.strip_prefix("//").ok_or(Error::Shape("docker://NAME[:TAG|@DIGEST]"))?;
    let named = Named::parse(name)?.with_default_tag();
    if named.tag.is_some() && named.digest.is_some() {
        return Err(Error::BothTagAndDigest);
    }
    Ok(Parts::Docker(named))
}

fn parse_atomic(rest: &str) -> Result<Parts, Error> {
    const SHAPE: Error = Error::Shape("atomic:HOST/NAMESPACE/STREAM:TAG");
    let named = Named::parse(rest)?;
    if named.tag.is_none() || named.digest.is_some() || named.path.split('/').count() != 2 {
        return Err(SHAPE);
    }
    Ok(Parts::Atomic(named))
}

fn parse_docker_archive(rest: &str) -> Result<Parts, Error> {
    const SHAPE: Error = Error::Shape("docker-archive:PATH[:NAME[:TAG]|:@INDEX]");
    if rest.is_empty() {
        return Err(SHAPE);
    }
    let (path, tail) = match rest.split_once(':') {
        None => (rest, None),
        Some((path, tail)) => (path, Some(tail)),
    };
    let (image, named) = match tail.map(|tail| (tail, tail.strip_prefix('@'))) {
        None => (LayoutImage::Only, None),
        Some((_, Some(index))) => (LayoutImage::Index(parse_index(index)?), None),
        Some((name, None)) => {
            let named = Named::parse(name)?.with_default_tag();
            if named.tag.is_none() || named.digest.is_some() {
                return Err(SHAPE);
            }
            (LayoutImage::Named(named.to_string()), Some(named))
        }
    };
    Ok(Parts::DockerArchive { path: path.to_owned(), image, named })
}

fn parse_docker_daemon(rest: &str) -> Result<Parts, Error> {
    const SHAPE: Error = Error::Shape("docker-daemon:NAME:TAG or docker-daemon:sha256:ID");
    if let Some(digest) = Digest::parse(rest) {
        return match digest.algorithm() {
            crate::digest::Algorithm::Sha256 => Ok(Parts::DockerDaemonId),
            crate::digest::Algorithm::Sha384 | crate::digest::Algorithm::Sha512 => Err(SHAPE),
        };
    }
    let named = Named::parse(rest)?;
    let reserved = named.name() == "docker.io/library/sha256";
    if reserved || named.is_name_only() || (named.tag.is_some() && named.digest.is_some()) {
        return Err(SHAPE);
    }
    Ok(Parts::DockerDaemonNamed(named))
}

fn parse_layout(transport: Transport, rest: &str) -> Result<Parts, Error> {
    let (path, image) = rest.split_once(':').unwrap_or((rest, ""));
    let image = match image.strip_prefix('@') {
        Some(index) if transport == Transport::Oci => LayoutImage::Index(parse_index(index)?),
        Some(_) | None if image.is_empty() => LayoutImage::Only,
        Some(_) | None if is_layout_image(image) => LayoutImage::Named(image.to_owned()),
        Some(_) | None => return Err(Error::LayoutImage(image.to_owned())),
    };
    Ok(Parts::Layout { transport, path: path.to_owned(), image })
}

/// An index as Go's `Atoi` reads it, and not negative.
fn parse_index(text: &str) -> Result<u64, Error> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let negative = text.starts_with('-') && digits.bytes().any(|b| b != b'0');
    let value = digits.parse::<i64>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    match value.and_then(|v| u64::try_from(v).ok()) {
        Some(value) if !negative => Ok(value),
        Some(_) | None => Err(Error::LayoutImage(format!("@{text}"))),
    }
}

/// Runs of letters and digits, joined by one of `-._:@+` or `--`, parted by `/`.
fn is_layout_image(text: &str) -> bool {
    text.split('/').all(|component| {
        let alphanumeric = |b: &u8| b.is_ascii_alphanumeric();
        let bytes = component.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes
                .split(alphanumeric)
                .all(|separator| matches!(separator, b"" | b"-" | b"." | b"_" | b":" | b"@" | b"+" | b"--"))
    })
}

/// Where `ostree:` images are unless the name says otherwise; containers-transports(5).
pub const OSTREE_REPOSITORY: &str = "/ostree/repo";

/// `IMAGE[@/REPOSITORY]`; the image stays as it is written, but for a tag.
fn parse_ostree(rest: &str) -> Result<Parts, Error> {
    let (image, repository) = match rest.split_once("@/") {
        Some((image, repository)) => (image, format!("/{repository}")),
        None => (rest, OSTREE_REPOSITORY.to_owned()),
    };
    let tag = if Named::parse(image)?.is_name_only() { ":latest" } else { "" };
    Ok(Parts::Ostree { repository, image: format!("{image}{tag}") })
}

/// The image in its repository, then its name shortened by one `/` part at a time.
fn ostree_scopes(repository: &str, image: &str) -> (String, Vec<String>) {
    let name = image.split(':').next().unwrap_or_default();
    let namespaces = parents(name).into_iter().map(|name| format!("{repository}:{name}"));
    (format!("{repository}:{image}"), namespaces.collect())
}

/// The directories of images that the options of a store name; containers-storage.conf(5).
pub fn image_stores(options: &str) -> Vec<String> {
    let stores = options.split(',').filter_map(|option| {
        let (key, value) = option.split_once('=')?;
        let key = key.trim().to_ascii_lowercase();
        let name = key.rsplit('.').next().unwrap_or_default();
        matches!(name, "imagestore" | "additionalimagestore").then(|| value.trim().to_owned())
    });
    stores.filter(|store| !store.is_empty()).collect()
}

/// `[driver@root+run:options]name[:tag][@digest][@id]`; containers-transports(5), rule S-12.
fn parse_storage(rest: &str) -> Result<Parts, Error> {
    const SHAPE: Error = Error::Shape("containers-storage:[[DRIVER@]ROOT]NAME[:TAG][@DIGEST][@ID]");
    let (store, rest) = match rest.strip_prefix('[') {
        None => (None, rest),
        Some(bracket) => {
            let (spec, rest) = bracket.split_once(']').ok_or(SHAPE)?;
            let (driver, root) = match spec.split_once('@') {
                Some(("", _)) => return Err(SHAPE),
                Some((driver, root)) => (Some(driver.to_owned()), root),
                None => (None, spec),
            };
            let (root, options) = root.split_once(':').unwrap_or((root, ""));
            let root = root.split('+').next().unwrap_or_default();
            if root.is_empty() {
                return Err(SHAPE);
            }
            (Some(StoreText { driver, root: root.to_owned(), images: image_stores(options) }), rest)
        }
    };
    // An image ID and a digest use the same separator; only an ID is taken off here.
    let (name, id, mut short) = match rest.rsplit_once('@') {
        Some((name, last)) if Digest::parse(last).is_none() => match last.len() {
            64 if is_lower_hex(last) => (name, Some(last.to_owned()), None),
            SHORT_ID_DIGITS..64 if is_lower_hex(last) => (name, None, Some(ShortId::After(last.to_owned()))),
            _ => return Err(SHAPE),
        },
        Some(_) | None => (rest, None, None),
    };
    if name == rest && (SHORT_ID_DIGITS..=64).contains(&name.len()) && is_lower_hex(name) {
        short = Some(ShortId::Whole(name.to_owned()));
    }
    let named = match (name, &short) {
        ("", _) => None,
        (name, Some(ShortId::Whole(_))) => Named::parse(name).ok().map(Named::with_default_tag),
        (name, Some(ShortId::After(_)) | None) => Some(Named::parse(name)?.with_default_tag()),
    };
    if named.is_none() && id.is_none() && short.is_none() {
        return Err(SHAPE);
    }
    Ok(Parts::Storage { store, named, id, short })
}

/// Fewest digits that are taken for the beginning of an image ID: 3, as in the reference.
const SHORT_ID_DIGITS: usize = 3;

fn storage_scopes(store: &Store, named: Option<&Named>, id: Option<&str>) -> (String, Vec<String>) {
    let full = format!("[{}@{}]", store.driver, store.root);
    let mut identity = full.clone();
    let mut scopes = Vec::new();
    if let Some(named) = named {
        identity.push_str(&named.to_string());
        if id.is_some() {
            scopes.push(format!("{full}{named}"));
        }
        if let (Some(tag), Some(_)) = (&named.tag, &named.digest) {
            scopes.push(format!("{full}{}:{tag}", named.name()));
        }
        scopes.extend(parents(&named.name()).into_iter().map(|scope| format!("{full}{scope}")));
    }
    if let Some(id) = id {
        identity.push('@');
        identity.push_str(id);
    }
    scopes.push(full);
    scopes.push(format!("[{}]", store.root));
    (identity, scopes)
}

/// The directories above `path` without `/`, `path` itself first if `own` (rules S-9, S-10).
fn path_namespaces(path: &str, own: bool) -> Vec<String> {
    parents(path).into_iter().skip(usize::from(!own)).filter(|p| !p.is_empty() && p != "/").collect()
}

/// Where the bytes of an image are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A registry; the image has a [`Named`].
    Registry,
    /// A directory in `dir:` form, resolved.
    Dir(String),
    /// A file made by `docker save`, absolute.
    DockerArchive {
        /// The file.
        path: String,
        /// The image in it.
        image: LayoutImage,
    },
    /// An OCI layout, resolved.
    Layout {
        /// The directory of `index.json`.
        path: String,
        /// The image in it.
        image: LayoutImage,
    },
    /// An OCI layout in a tar file, resolved.
    OciArchive {
        /// The file.
        path: String,
        /// The image in it.
        image: LayoutImage,
    },
    /// A store of containers-storage.
    Storage {
        /// The store.
        store: Store,
        /// The whole ID of the image, if the name gives it.
        id: Option<String>,
        /// Else the ID that the image of this name had when it was looked up.
        known: Option<String>,
    },
    /// A place that this version cannot read.
    Elsewhere,
}

/// An image whose policy identity is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    text: String,
    transport: Transport,
    identity: String,
    namespaces: Vec<String>,
    named: Option<Named>,
    place: Place,
}

impl ImageReference {
    /// An image in a registry; nothing if `named` has not exactly one of tag and digest.
    pub fn docker(named: Named) -> Option<Self> {
        let one = named.tag.is_some() != named.digest.is_some();
        one.then(|| Self {
            text: format!("docker://{named}"),
            transport: Transport::Docker,
            identity: named.to_string(),
            namespaces: named.namespaces(),
            named: Some(named),
            place: Place::Registry,
        })
    }

    /// The name as the user gave it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The transport.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The most specific scope, empty where a transport has none.
    pub fn policy_identity(&self) -> &str {
        &self.identity
    }

    /// The wider scopes, most specific first.
    pub fn policy_namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// The name that signed identities are compared with; `None` for images without one (rule S-14).
    pub fn docker_reference(&self) -> Option<&Named> {
        self.named.as_ref()
    }

    /// The digest that the name pins.
    pub fn pinned_digest(&self) -> Option<&Digest> {
        self.named.as_ref().and_then(Named::digest)
    }

    /// The name of an image in a registry; `None` for images elsewhere.
    pub fn in_registry(&self) -> Option<&Named> {
        self.named.as_ref().filter(|_| self.place == Place::Registry)
    }

    /// Where the image is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// An image in a store has the scopes of its ID too, even if the name does not give it (rule S-12).
    ///
    /// `known` is the ID that the name leads to. Other images stay as they are.
    pub fn with_known_id(mut self, known: &str) -> Self {
        if let Place::Storage { store, id: None, known: place } = &mut self.place {
            *place = Some(known.to_owned());
            (self.identity, self.namespaces) = storage_scopes(store, self.named.as_ref(), Some(known));
        }
        self
    }

    /// The reference that names exactly `digest`; `None` where the transport cannot.
    pub fn pinned(&self, digest: &Digest) -> Option<Self> {
        Self::docker(self.in_registry()?.pinned(digest.clone()))
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_end_with_wildcards() {
        let named = Named::parse("a.b.example.com:8443/ns1/ns2/r:t").unwrap();
        assert_eq!(
            named.namespaces(),
            [
                "a.b.example.com:8443/ns1/ns2/r",
                "a.b.example.com:8443/ns1/ns2",
                "a.b.example.com:8443/ns1",
                "a.b.example.com:8443",
                "*.b.example.com",
                "*.example.com",
                "*.com",
            ]
        );
    }

    #[test]
    fn oci_urls_are_registry_names_and_paths_stay_paths() {
        for (text, transport) in [
            ("oci://ghcr.io/acme/chart:1", Transport::Docker),
            ("oci://localhost:5000/chart:1", Transport::Docker),
            ("registry:ghcr.io/acme/app:1", Transport::Docker),
            ("oci:///tmp/layout", Transport::Oci),
            ("oci://tmp/layout", Transport::Oci),
            ("oci:/tmp/layout:1", Transport::Oci),
            ("registry:quay.io/a/b:1", Transport::Docker),
            ("registry:localhost/a", Transport::Docker),
        ] {
            assert_eq!(ImageName::parse(text).unwrap().transport(), transport, "{text}");
        }
        // The repository "registry" with a tag, which is another image than "docker://2".
        for text in ["registry:2", "registry:2.8.3", "registry:latest", "registry:5000/a"] {
            assert_eq!(ImageName::parse(text), Err(Error::Transport), "{text}");
        }
    }

    #[test]
    fn a_pinned_reference_has_no_tag() {
        let named = Named::parse("quay.io/a/b:1").unwrap();
        let digest = Digest::sha256(b"x");
        let pinned = ImageReference::docker(named).unwrap().pinned(&digest).unwrap();
        assert_eq!(pinned.text(), format!("docker://quay.io/a/b@{digest}"));
    }
}
