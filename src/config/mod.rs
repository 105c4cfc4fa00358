//! Where things are on this host: policy.json, registries.conf, registries.d, storage.conf and vouchd.toml.
//!
//! What the search depends on comes in as an [`Environment`]; nothing here reads a variable on its way.

mod clock;
mod file;
mod lookaside_url;
mod registries_conf;
mod registries_d;
mod storage_conf;
mod stray;
mod trusted_root;
mod vouchd_toml;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Code, Position, escape};
use crate::reference::Named;

pub use clock::{LAST_SEEN, LastSeen, clock_floor};
pub use file::{Identity, RegularFile, clean, replace};
pub use lookaside_url::LookasideUrl;
pub use registries_conf::{
    Endpoint, RegistriesConf, RegistriesConfSource, RegistryEntry, ShortName, ShortNameProblem, ShortNames,
    is_short_name,
};
pub use registries_d::{Directories, Origin, RegistriesD};
pub use storage_conf::{StorageConf, StorageVariables};
pub use stray::{Stray, What, strays};
pub use trusted_root::{TrustedRootFiles, TufRepository};
pub use vouchd_toml::{MetricsSettings, ProxySettings, TrustedRootSettings, VouchdToml};

/// Largest policy file: 32 MiB, design decision 6.
pub const POLICY_BYTES: usize = 32 << 20;

/// Largest configuration file of any other kind: 4 MiB, design decision 6.
pub const CONFIGURATION_BYTES: usize = 4 << 20;

/// Most files of one configuration: 1,024, so that all together are bounded.
pub const FILES: usize = 1 << 10;

/// What the search for configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// What `/` stands for in the paths of the system's own files (rule L-6).
    pub root: PathBuf,
    /// Whose configuration is meant.
    pub uid: u32,
    /// The files and variables of the user, where they count.
    pub user: Option<User>,
}

/// What belongs to the user and not to the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `$HOME`, or what the user database says.
    pub home: PathBuf,
    /// `$XDG_CONFIG_HOME`, if it is set and not empty; XDG Base Directory Specification.
    pub xdg_config_home: Option<PathBuf>,
    /// `$XDG_CACHE_HOME`, if it is set and not empty; XDG Base Directory Specification.
    pub xdg_cache_home: Option<PathBuf>,
    /// `$CONTAINERS_POLICY_JSON`, if it is set and not empty (rule L-2).
    pub policy_json: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF`, if it is set and not empty (rule M-1).
    pub registries_conf: Option<PathBuf>,
    /// `$CONTAINERS_REGISTRIES_CONF_OVERRIDE`, if it is set and not empty (rule M-1).
    pub registries_conf_override: Option<PathBuf>,
    /// What says where containers-storage is.
    pub storage: Box<StorageVariables>,
}

impl User {
    /// The user with this home directory and none of the variables.
    pub fn at_home(home: impl Into<PathBuf>) -> Self {
        Self {
            home: home.into(),
            xdg_config_home: None,
            xdg_cache_home: None,
            policy_json: None,
            registries_conf: None,
            registries_conf_override: None,
            storage: Box::default(),
        }
    }
}

impl Environment {
    /// The system's configuration and nobody else's; what the daemon reads, whatever its uid (T-22).
    pub fn system() -> Self {
        Self { root: PathBuf::from("/"), uid: 0, user: None }
    }

    /// What this process sees; as root the user's own files count only if `user_config` (T-22).
    pub fn from_process(user_config: bool) -> Self {
        let uid = nix::unistd::geteuid();
        if uid.is_root() && !user_config {
            return Self::system();
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = set("HOME")
            .map(PathBuf::from)
            .or_else(|| nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.dir))
            .unwrap_or_else(|| PathBuf::from("/"));
        // Rule D-12: inside `podman unshare` root is somebody else.
        let outer_uid = set("_CONTAINERS_ROOTLESS_UID").and_then(|text| text.to_str()?.parse().ok());
        let path = |value: Option<OsString>| value.map(PathBuf::from);
        Self {
            root: PathBuf::from("/"),
            uid: outer_uid.unwrap_or(uid.as_raw()),
            user: Some(User {
                home,
                xdg_config_home: path(set("XDG_CONFIG_HOME")),
                xdg_cache_home: path(set("XDG_CACHE_HOME")),
                policy_json: path(set("CONTAINERS_POLICY_JSON")),
                registries_conf: path(set("CONTAINERS_REGISTRIES_CONF")),
                registries_conf_override: path(set("CONTAINERS_REGISTRIES_CONF_OVERRIDE")),
                storage: Box::new(StorageVariables {
                    conf: path(set("CONTAINERS_STORAGE_CONF")),
                    conf_override: path(set("CONTAINERS_STORAGE_CONF_OVERRIDE")),
                    driver: set("STORAGE_DRIVER").map(|value| value.to_string_lossy().into_owned()),
                    // Empty, it still takes away what the files say.
                    options: std::env::var_os("STORAGE_OPTS")
                        .map(|value| value.to_string_lossy().into_owned()),
                    xdg_data_home: path(set("XDG_DATA_HOME")),
                    xdg_runtime_dir: path(set("XDG_RUNTIME_DIR")),
                }),
            }),
        }
    }

    /// Directories that hold the certificates of registries by host, the most important first (rule T-1).
    pub fn certs_d(&self) -> Vec<PathBuf> {
        let names = match self.uid {
            0 => vec!["certs.rootful.d".to_owned()],
            uid => vec![format!("certs.rootless.d/{uid}"), "certs.rootless.d".to_owned()],
        };
        let system = ["/etc/containers", "/usr/share/containers"].into_iter().flat_map(|base| {
            let base = self.system_path(base);
            names.iter().map(String::as_str).chain(["certs.d"]).map(move |name| base.join(name))
        });
        let last = self.system_path("/etc/docker/certs.d");
        self.user_path("certs.d").into_iter().chain(system).chain([last]).collect()
    }

    /// Where a policy.json may be, each counting before the next: our own, the user's, the system's and the vendor's
    /// (design decision 3.2, rule L-3).
    pub fn policies(&self) -> PolicyPaths {
        PolicyPaths {
            own: self.system_path("/etc/vouchd/policy.json"),
            user: self.user_path("policy.json"),
            system: self.system_path("/etc/containers/policy.json"),
            vendor: self.system_path("/usr/share/containers/policy.json"),
        }
    }

    /// A path of the system, below [`Environment::root`].
    fn system_path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A path below the user's `containers` directory, where the user's files count.
    fn user_path(&self, name: &str) -> Option<PathBuf> {
        let user = self.user.as_ref()?;
        let base = user.xdg_config_home.clone().unwrap_or_else(|| user.home.join(".config"));
        Some(base.join("containers").join(name))
    }
}

/// Where a policy.json may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPaths {
    /// Of vouchd alone.
    pub own: PathBuf,
    /// Of the user, where the user's files count.
    pub user: Option<PathBuf>,
    /// Of the administrator.
    pub system: PathBuf,
    /// Of the vendor.
    pub vendor: PathBuf,
}

/// Which policy.json is meant; design decision 3.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// This file and no other (rule L-1).
    Explicit(PathBuf),
    /// The first of our own, the user's, the system's and the vendor's (rules L-2, L-3).
    Search(Environment),
}

/// A policy.json as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    /// Where it was found.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl PolicySource {
    /// As [`PolicySource::read`], but a policy that others than root and who runs this process can change is an error
    /// (T-23).
    pub fn read_ours(&self) -> Result<PolicyFile, Error> {
        let file = self.read()?;
        match writable_by_others(&file.path) {
            None => Ok(file),
            Some(place) => {
                let detail = format!("\"{}\" can be changed by others than root", place.display());
                Err(Error::PolicyUntrusted { path: file.path, detail })
            }
        }
    }

    /// Finds the file and reads it.
    ///
    /// Only a path that is truly absent leads to the next one; whatever else is wrong is an error (T-23).
    pub fn read(&self) -> Result<PolicyFile, Error> {
        let environment = match self {
            Self::Explicit(path) => return read_policy(path, &open_policy(path)?),
            Self::Search(environment) => environment,
        };
        let is_absent = |path: &Path| {
            is_absent(path).map_err(|detail| Error::PolicyUnreadable { path: path.to_owned(), detail })
        };
        let PolicyPaths { own, user, system, vendor } = environment.policies();
        if !is_absent(&own)? {
            let file = open_policy(&own)?;
            check_owner(&environment.root, &own, &file)
                .map_err(|detail| Error::PolicyUntrusted { path: own.clone(), detail })?;
            return read_policy(&own, &file);
        }
        if let Some(path) = environment.user.as_ref().and_then(|user| user.policy_json.as_deref()) {
            return read_policy(path, &open_policy(path)?);
        }
        let mut searched = vec![own];
        for path in user.into_iter().chain([system, vendor]) {
            if !is_absent(&path)? {
                return read_policy(&path, &open_policy(&path)?);
            }
            searched.push(path);
        }
        Err(Error::PolicyMissing { searched })
    }
}

fn open_policy(path: &Path) -> Result<RegularFile, Error> {
    RegularFile::open(path)
        .map_err(|error| Error::PolicyUnreadable { path: path.to_owned(), detail: error.to_string() })
}

fn read_policy(path: &Path, file: &RegularFile) -> Result<PolicyFile, Error> {
    match file.read(POLICY_BYTES) {
        Ok(bytes) => Ok(PolicyFile { path: path.to_owned(), bytes }),
        Err(error) => Err(Error::PolicyUnreadable { path: path.to_owned(), detail: error.to_string() }),
    }
}

/// Whether nothing has this name. A symbolic link that leads nowhere is something, on the way to it too (T-23).
fn is_absent(path: &Path) -> Result<bool, String> {
    for ancestor in path.ancestors() {
        match fs::symlink_metadata(ancestor) {
            Ok(_) if ancestor == path => return Ok(false),
            Ok(_) => {
                return fs::metadata(ancestor)
                    .map(|_| true)
                    .map_err(|error| format!("\"{}\": {error}", ancestor.display()));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(true)
}

/// Our own files must be root's, and so must every directory on the way to it; a symbolic link could lead by way of
/// somebody else's (T-23).
fn check_owner(root: &Path, path: &Path, file: &RegularFile) -> Result<(), String> {
    let check = |what: &Path, metadata: &fs::Metadata| {
        if metadata.uid() != 0 {
            return Err(format!("\"{}\" is not owned by root", what.display()));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(format!("\"{}\" can be written by others than root", what.display()));
        }
        Ok(())
    };
    check(path, file.metadata())?;
    for place in path.ancestors().take_while(|place| place.starts_with(root)) {
        let metadata = fs::symlink_metadata(place).map_err(|error| error.to_string())?;
        if metadata.is_symlink() {
            return Err(format!("\"{}\" is a symbolic link", place.display()));
        }
        check(place, &metadata)?;
    }
    Ok(())
}

/// The file, or the directory or link on the way to it, that somebody can change who is neither root nor runs this
/// process (T-23).
pub fn writable_by_others(path: &Path) -> Option<PathBuf> {
    let mut path = std::path::absolute(path).ok()?;
    for _ in 0..LINKS {
        let mut places: Vec<PathBuf> = path.ancestors().map(Path::to_owned).collect();
        places.reverse();
        let mut link = None;
        for place in places {
            let Ok(metadata) = fs::symlink_metadata(&place) else { return Some(place) };
            if is_open_to_others(&metadata) {
                return Some(place);
            }
            if metadata.is_symlink() {
                link = Some(place);
                break;
            }
        }
        let link = link?;
        let (Ok(target), Ok(rest)) = (fs::read_link(&link), path.strip_prefix(&link)) else {
            return Some(link);
        };
        let target = link.parent().unwrap_or(Path::new("/")).join(target);
        // Without a slash at its end, if the link is the last part.
        path = if rest.as_os_str().is_empty() { target } else { target.join(rest) };
    }
    Some(path)
}

fn is_open_to_others(metadata: &fs::Metadata) -> bool {
    const STICKY: u32 = 0o1000;
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    if metadata.uid() != 0 && metadata.uid() != uid {
        return true;
    }
    // A link has no mode; in a sticky directory nobody can replace what is another's; /dev/null may be written.
    let has_mode = metadata.is_file() || metadata.is_dir() && metadata.mode() & STICKY == 0;
    let of_group = metadata.mode() & 0o020 != 0 && metadata.gid() != 0 && metadata.gid() != gid;
    has_mode && (of_group || metadata.mode() & 0o002 != 0)
}

/// The file, or the directory on the way to it, that everybody can change, links followed.
pub fn writable_by_all(path: &Path) -> Option<PathBuf> {
    const STICKY: u32 = 0o1000;
    let real = fs::canonicalize(path).ok()?;
    let is_open = |place: &&Path| {
        let Ok(metadata) = fs::metadata(place) else { return false };
        // In a sticky directory nobody can replace what is another's.
        let counts = if *place == real { metadata.is_file() } else { metadata.mode() & STICKY == 0 };
        counts && metadata.mode() & 0o002 != 0
    };
    real.ancestors().find(is_open).map(Path::to_owned)
}

/// The file, or the directory on the way to it, that not everybody may read, links followed.
pub fn unreadable_for_others(path: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(path).ok()?;
    let is_closed = |place: &&Path| {
        let wanted = if *place == real { 0o004 } else { 0o001 };
        fs::metadata(place).is_ok_and(|metadata| metadata.mode() & wanted == 0)
    };
    real.ancestors().find(is_closed).map(Path::to_owned)
}

/// Most links on the way to a file; path_resolution(7).
const LINKS: usize = 40;

/// Why the configuration cannot be used: nothing has been decided.
///
/// Texts from outside are kept raw and escaped where they are printed; no variant holds credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// One setting of registries.d is in two files (rule D-6).
    Conflict {
        /// The scope under `docker`; `None` for `default-docker`.
        scope: Option<String>,
        /// The file that was read first.
        first: PathBuf,
        /// The other file.
        second: PathBuf,
    },
    /// registries.conf leads an image to a place that cannot be used (rule M-5).
    Endpoint {
        /// The image.
        image: Box<Named>,
        /// The entry that leads there.
        entry: RegistryEntry,
        /// The location, of a mirror or of the entry itself.
        location: String,
        /// What is wrong.
        detail: &'static str,
    },
    /// A lookaside URL in registries.d cannot be used.
    LookasideUrl {
        /// Where it is set.
        origin: Origin,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// There is no policy.json (rule L-4).
    PolicyMissing {
        /// Where one was looked for.
        searched: Vec<PathBuf>,
    },
    /// The policy cannot be read.
    PolicyUnreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Somebody else than root could have written the policy (T-23).
    PolicyUntrusted {
        /// The file.
        path: PathBuf,
        /// Who could, and where.
        detail: String,
    },
    /// A file or directory of registries.conf, or the cache of short names, cannot be used.
    RegistriesConf {
        /// The file or directory.
        path: PathBuf,
        /// Where in the file.
        at: Option<Position>,
        /// What is wrong.
        detail: String,
    },
    /// A registries.conf has tables of version 1 of the format (rule M-1).
    RegistriesConfVersion {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        at: Position,
        /// The table under `registries`.
        table: &'static str,
    },
    /// A file or directory of registries.d cannot be used.
    RegistriesD {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// registries.conf blocks the image (rule M-8).
    RegistryBlocked {
        /// The image.
        image: Box<Named>,
        /// The entry that blocks it.
        entry: RegistryEntry,
    },
    /// A short name leads to no image, or not to exactly one (rules N-2, N-3).
    ShortName {
        /// The name.
        name: String,
        /// Why.
        problem: ShortNameProblem,
    },
    /// A file of storage.conf cannot be used.
    StorageConf {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The trusted root of this host cannot be used.
    TrustedRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A file of vouchd's own configuration cannot be used.
    VouchdToml {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        at: Option<Position>,
        /// What is wrong.
        detail: String,
    },
}

impl Error {
    /// The stable name of the cause.
    pub fn code(&self) -> Code {
        match self {
            Self::Conflict { .. } | Self::LookasideUrl { .. } | Self::RegistriesD { .. } => {
                Code::RegistriesDInvalid
            }
            Self::Endpoint { .. } | Self::RegistriesConf { .. } | Self::RegistriesConfVersion { .. } => {
                Code::RegistriesConfInvalid
            }
            Self::PolicyMissing { .. } => Code::PolicyMissing,
            Self::PolicyUnreadable { .. } => Code::PolicyUnreadable,
            Self::PolicyUntrusted { .. } => Code::PolicyInvalid,
            Self::RegistryBlocked { .. } => Code::RegistryBlocked,
            Self::ShortName { .. } => Code::ShortName,
            Self::StorageConf { .. } => Code::StorageConfInvalid,
            Self::TrustedRoot { .. } => Code::TrustedRootInvalid,
            Self::VouchdToml { .. } => Code::VouchdTomlInvalid,
        }
    }

    /// The policy file that cannot be used, if that is the cause.
    pub fn policy_path(&self) -> Option<&Path> {
        match self {
            Self::PolicyUnreadable { path, .. } | Self::PolicyUntrusted { path, .. } => Some(path),
            Self::Conflict { .. }
            | Self::Endpoint { .. }
            | Self::LookasideUrl { .. }
            | Self::PolicyMissing { .. }
            | Self::RegistriesConf { .. }
            | Self::RegistriesConfVersion { .. }
            | Self::RegistriesD { .. }
            | Self::RegistryBlocked { .. }
            | Self::ShortName { .. }
            | Self::StorageConf { .. }
            | Self::TrustedRoot { .. }
            | Self::VouchdToml { .. } => None,
        }
    }

    /// The file, other than a policy, that cannot be used, and where in it, if that is the cause.
    pub fn place(&self) -> Option<(&Path, Option<Position>)> {
        match self {
            Self::RegistriesConf { path, at, .. } | Self::VouchdToml { path, at, .. } => Some((path, *at)),
            Self::RegistriesConfVersion { path, at, .. } => Some((path, Some(*at))),
            Self::Conflict { second: path, .. }
            | Self::LookasideUrl { origin: Origin { file: path, .. }, .. }
            | Self::RegistriesD { path, .. }
            | Self::StorageConf { path, .. }
            | Self::TrustedRoot { path, .. } => Some((path, None)),
            Self::Endpoint { .. }
            | Self::PolicyMissing { .. }
            | Self::PolicyUnreadable { .. }
            | Self::PolicyUntrusted { .. }
            | Self::RegistryBlocked { .. }
            | Self::ShortName { .. } => None,
        }
    }

    /// Whether the fault is in what the administrator wrote, or left out.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Conflict { .. }
            | Self::Endpoint { .. }
            | Self::LookasideUrl { .. }
            | Self::PolicyMissing { .. }
            | Self::PolicyUnreadable { .. }
            | Self::PolicyUntrusted { .. }
            | Self::RegistriesConf { .. }
            | Self::RegistriesConfVersion { .. }
            | Self::RegistriesD { .. }
            | Self::StorageConf { .. }
            | Self::TrustedRoot { .. }
            | Self::VouchdToml { .. } => true,
            Self::RegistryBlocked { .. } | Self::ShortName { .. } => false,
        }
    }

    /// What can be done about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "remove the setting from one of the two files",
            Self::Endpoint { .. } => "correct the location; see containers-registries.conf(5)",
            Self::LookasideUrl { .. } => "write a URL that begins with https://, http:// or file:///",
            Self::PolicyMissing { .. } => {
                "write /etc/containers/policy.json, or name a file with --policy; see containers-policy.json(5)"
            }
            Self::PolicyUnreadable { .. } => {
                "correct the file or its permissions, or name another with --policy"
            }
            Self::PolicyUntrusted { .. } => {
                "make it a regular file of root's, in directories that only root can write to"
            }
            Self::RegistriesConf { .. } => {
                "correct the file or its permissions; see containers-registries.conf(5)"
            }
            Self::RegistriesConfVersion { .. } => {
                "write [[registry]] tables with \"location\", \"insecure\" and \"blocked\", and \"unqualified-search-registries\" at the top"
            }
            Self::RegistriesD { .. } => "correct the file or its permissions; see containers-registries.d(5)",
            Self::RegistryBlocked { .. } => {
                "use an image of another registry, or ask who administers this host why it is blocked"
            }
            Self::ShortName { problem, .. } => problem.help(),
            Self::StorageConf { .. } => {
                "correct the file, or write which store is meant: containers-storage:[DRIVER@ROOT]NAME"
            }
            Self::TrustedRoot { .. } => {
                "correct or remove the file, and keep it root's; then run \"vouchd trust update\" or \"vouchd trust import\""
            }
            Self::VouchdToml { .. } => "correct the file, and keep it root's; see vouchd.toml(5)",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &Path| escape(&path.to_string_lossy());
        match self {
            Self::Conflict { scope: Some(scope), first, second } => write!(
                f,
                "docker scope \"{}\" is both in \"{}\" and in \"{}\"",
                escape(scope),
                shown(first),
                shown(second)
            ),
            Self::Conflict { scope: None, first, second } => {
                write!(f, "\"default-docker\" is both in \"{}\" and in \"{}\"", shown(first), shown(second))
            }
            Self::Endpoint { image, entry, location, detail } => {
                write!(f, "cannot fetch \"{image}\" from \"{}\", as {entry} says: {detail}", escape(location))
            }
            Self::LookasideUrl { origin, detail } => {
                write!(f, "cannot use the lookaside URL of {origin}: {detail}")
            }
            Self::PolicyMissing { searched } => {
                let searched: Vec<String> = searched.iter().map(|p| format!("\"{}\"", shown(p))).collect();
                write!(f, "there is no policy.json: looked for {}", searched.join(", "))
            }
            Self::PolicyUnreadable { path, detail } => {
                write!(f, "cannot read the policy \"{}\": {}", shown(path), escape(detail))
            }
            Self::PolicyUntrusted { path, detail } => {
                write!(f, "the policy \"{}\" is not trusted: {}", shown(path), escape(detail))
            }
            Self::RegistriesConf { path, at: Some(at), detail }
            | Self::VouchdToml { path, at: Some(at), detail } => {
                write!(f, "cannot use \"{}:{}:{}\": {}", shown(path), at.line, at.column, escape(detail))
            }
            Self::RegistriesConf { path, at: None, detail }
            | Self::RegistriesD { path, detail }
            | Self::StorageConf { path, detail }
            | Self::TrustedRoot { path, detail }
            | Self::VouchdToml { path, at: None, detail } => {
                write!(f, "cannot use \"{}\": {}", shown(path), escape(detail))
            }
            Self::RegistriesConfVersion { path, at, table } => write!(
                f,
                "cannot use \"{}:{}:{}\": \"registries.{table}\" is of version 1 of the format, which is not read any more",
                shown(path),
                at.line,
                at.column
            ),
            Self::RegistryBlocked { image, entry } => write!(f, "\"{image}\" is blocked by {entry}"),
            Self::ShortName { name, problem } => {
                write!(f, "cannot tell which image \"{}\" is: {problem}", escape(name))
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    // Rule T-23.
    #[test]
    fn what_others_can_change_is_found_on_every_way() {
        let tmp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(tmp.path()).unwrap();
        let [good, open, other, sticky, ways] = ["good", "open", "other", "sticky", "ways"].map(|name| {
            let path = root.join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), "").unwrap();
            for place in [&path, &path.join("file")] {
                let mode = if place.is_dir() { 0o755 } else { 0o644 };
                fs::set_permissions(place, fs::Permissions::from_mode(mode)).unwrap();
            }
            path
        });
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(&sticky, fs::Permissions::from_mode(0o1777)).unwrap();
        let link = |name: &str, target: &Path| symlink(target, ways.join(name)).unwrap();
        link("good", &good.join("file"));
        link("directory", &good);
        link("relative", Path::new("../good/file"));
        link("open", &open.join("file"));
        link("by-way-of-open", &open.join("link"));
        symlink(good.join("file"), open.join("link")).unwrap();
        link("loop", &ways.join("loop"));
        link("null", Path::new("/dev/null"));
        let mut cases = vec![
            (good.join("file"), None),
            (sticky.join("file"), None),
            (open.join("file"), Some(open.clone())),
            (ways.join("good"), None),
            (ways.join("directory/file"), None),
            (ways.join("relative"), None),
            (ways.join("open"), Some(open.clone())),
            (ways.join("by-way-of-open"), Some(open.clone())),
            (ways.join("loop"), Some(ways.join("loop"))),
            (ways.join("null"), None),
        ];
        // Only root can give files away.
        if nix::unistd::geteuid().is_root() {
            chown(&other, Some(65534), Some(65534)).unwrap();
            cases.push((other.join("file"), Some(other)));
            let (file, group) = (good.join("theirs"), good.join("group"));
            for (path, uid, gid, mode) in [(&file, 65534, 0, 0o644), (&group, 0, 65534, 0o664)] {
                fs::write(path, "").unwrap();
                chown(path, Some(uid), Some(gid)).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
                cases.push((path.clone(), Some(path.clone())));
            }
            fs::write(sticky.join("theirs"), "").unwrap();
            chown(sticky.join("theirs"), Some(65534), Some(65534)).unwrap();
            cases.push((sticky.join("theirs"), Some(sticky.join("theirs"))));
        }
        for (path, wanted) in cases {
            assert_eq!(writable_by_others(&path), wanted, "{}", path.display());
        }
    }
}
