//! `vouchd trust update` and `import`: a newer trusted root for this host. The only place that asks a Sigstore server.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp as Moment;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::{Gid, Uid, fchown};
use sigstore_tuf::transport::FetchFuture;
use sigstore_tuf::{MemoryStore, MetadataStore, Repository, Updater};
use tokio::time::Instant;

use crate::config::{self, Environment, RegularFile, TrustedRootFiles, TufRepository};
use crate::diagnostic::{Code, escape};
use crate::fetch::host_root::initial;
use crate::fetch::registry::{Client, Errand, Proxies};
use crate::fetch::{Budget, Error, ProxySource, blocking};
use crate::reference::Named;
use crate::verify::Timestamp;
use crate::verify::trusted_root::{TRUSTED_ROOT_BYTES, TrustedRoot, TrustedRootError};
use crate::verify::tuf::{self, STATE_BYTES, TARGET, TufState, Versions};

/// What an update or import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The file that was written, or was left as it is.
    pub path: PathBuf,
    /// What there was before; `None` if nothing that counts.
    pub before: Option<Versions>,
    /// What there is now; `None` for a trusted root without TUF metadata.
    pub after: Option<Versions>,
    /// Until when it is known to be current.
    pub current_until: Option<Timestamp>,
}

impl Outcome {
    /// The name of the file among the sources of trusted roots.
    pub fn source(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }
}

/// Why the trusted root stays what it is.
///
/// Texts from outside are kept raw and escaped where they are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// The configuration of this host cannot be used, or the deadline passed.
    Fetch(Error),
    /// There is none to be had, or it proves nothing.
    Refused {
        /// The URL or file that it is from.
        source: String,
        /// What is wrong.
        detail: String,
    },
    /// It cannot be stored.
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

impl UpdateError {
    /// The stable name of the cause.
    pub fn code(&self) -> Code {
        match self {
            Self::Fetch(error) => error.code(),
            Self::Refused { .. } | Self::Unwritable { .. } => Code::TrustedRootUpdate,
        }
    }

    /// What the administrator can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.help(),
            Self::Refused { .. } => {
                "what was there stays in use; check what it is from, the table [trusted-root] of vouchd.toml(5), and the clock of this host"
            }
            Self::Unwritable { .. } => "run it as root, where the file system can be written",
        }
    }

    /// Whether the fault is in what the administrator wrote.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_configuration(),
            Self::Refused { .. } | Self::Unwritable { .. } => false,
        }
    }
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch(error) => error.fmt(f),
            Self::Refused { source, detail } => {
                write!(f, "the trusted root of \"{}\" is not taken: {}", escape(source), escape(detail))
            }
            Self::Unwritable { path, detail } => {
                write!(f, "cannot write \"{}\": {}", escape(&path.to_string_lossy()), escape(detail))
            }
        }
    }
}

impl std::error::Error for UpdateError {}

impl From<Error> for UpdateError {
    fn from(error: Error) -> Self {
        Self::Fetch(error)
    }
}

impl From<config::Error> for UpdateError {
    fn from(error: config::Error) -> Self {
        Self::Fetch(error.into())
    }
}

/// Asks the TUF repository of this host for a newer trusted root, and stores it with what proves it.
///
/// TUF's own rules hold: every root is signed by the one before, nothing goes back to an older version, and nothing that
/// has expired at `now` counts (The Update Framework specification 1.0, section 5). What is stored is checked once more
/// as every reader will.
pub async fn update(
    environment: &Environment,
    client: Client,
    proxies: ProxySource,
    deadline: Instant,
    now: Timestamp,
) -> Result<Outcome, UpdateError> {
    let environment = environment.clone();
    // What has expired must not come back to life because the clock was set back (T-19).
    let (floor, source) = config::clock_floor(&environment);
    if now < floor {
        let detail = format!("the clock of this host says {now}, which is before {floor}");
        return Err(UpdateError::Refused { source: source.to_owned(), detail });
    }
    let prepare = move || -> Result<_, UpdateError> {
        let repository = TufRepository::find(&environment)?;
        let url = repository.mirror.clone().unwrap_or_else(|| tuf::built_in_mirror().to_owned());
        Ok((Stored::open(&environment, repository)?, url, proxies.load()?))
    };
    let (stored, url, proxies) = blocking(move || Ok(prepare())).await??;
    let failed = |detail: String| UpdateError::Refused { source: url.clone(), detail };
    let failure = Arc::new(Mutex::new(None));
    let mirror = Mirror::new(&url, client, proxies, deadline, Arc::clone(&failure)).map_err(failed)?;
    let fetching = tokio::time::timeout_at(deadline, fetch(mirror, &stored, now));
    let fetched = match fetching.await {
        Ok(fetched) => fetched,
        Err(_) => {
            return Err(Error::TimedOut { waiting_for: format!("the trusted root at {url}") }.into());
        }
    };
    let state =
        fetched.map_err(|error| match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(cause @ Error::TimedOut { .. }) => cause.into(),
            Some(cause) => failed(cause.to_string()),
            None => failed(in_full(&error)),
        })?;
    blocking(move || Ok(stored.replace(&state, &url))).await?
}

/// Stores what another host has fetched, or makes a `trusted_root.json` the one of this host. It blocks.
///
/// What another host has fetched proves itself, and is not taken if it is older than what is here. For a trusted root
/// itself the administrator answers: it counts in place of all others.
pub fn import(environment: &Environment, path: &Path) -> Result<Outcome, UpdateError> {
    let origin = path.to_string_lossy();
    let refused = |detail| UpdateError::Refused { source: origin.clone().into_owned(), detail };
    let invalid = |error: TrustedRootError| refused(error.detail);
    let file = RegularFile::open(path).map_err(|error| refused(error.to_string()))?;
    let document = file.read(STATE_BYTES).map_err(|error| refused(error.to_string()))?;
    if TufState::is_one(&document) {
        let state = TufState::parse(&document).map_err(invalid)?;
        let stored = Stored::open(environment, TufRepository::find(environment)?)?;
        return stored.replace(&state, &origin);
    }
    let root = TrustedRoot::parse(&document).map_err(invalid)?;
    if !(root.has_authorities() && root.has_logs() && root.has_ct_logs()) {
        let detail = "it lists no authority, no log or no log of certificates, so that nothing could be verified with it; a requirement can name it as \"trustedRootPath\"";
        return Err(refused(detail.to_owned()));
    }
    let own = TrustedRootFiles::own_path(environment);
    make_directory(&own)?;
    write(&own, &document, file.metadata().modified().ok())?;
    Ok(Outcome { path: own, before: None, after: None, current_until: None })
}

/// What is stored, held so that nobody else replaces it meanwhile.
struct Stored {
    path: PathBuf,
    initial: Vec<u8>,
    /// What counts of it, with its versions.
    known: Option<(TufState, Versions)>,
    /// What it must not fall below.
    floor: u64,
    _lock: Flock<File>,
}

impl Stored {
    fn open(environment: &Environment, repository: TufRepository) -> Result<Self, UpdateError> {
        let path = TrustedRootFiles::state_path(environment);
        let lock = lock(&path)?;
        let initial = initial(&repository)?;
        // What proves nothing, or is no file, protects from nothing, and is replaced.
        let is_worthless = |error: &io::Error| {
            matches!(error.kind(), ErrorKind::FileTooLarge | ErrorKind::InvalidInput | ErrorKind::NotFound)
                || error.raw_os_error().map(Errno::from_raw) == Some(Errno::ELOOP)
        };
        let document = match RegularFile::open(&path).and_then(|file| file.read(STATE_BYTES)) {
            Ok(document) => Some(document),
            Err(error) if is_worthless(&error) => None,
            Err(error) => return Err(unwritable(&path, &error)),
        };
        let known = document.and_then(|document| {
            let state = TufState::parse(&document).ok()?;
            let versions = state.verify(&initial).ok()??.versions;
            Some((state, versions))
        });
        let floor = if repository.initial.is_some() { 0 } else { tuf::BUILT_IN.0 };
        Ok(Self { path, initial, known, floor, _lock: lock })
    }

    /// Stores a state that proves itself and is not older than what is here. It blocks.
    fn replace(self, state: &TufState, origin: &str) -> Result<Outcome, UpdateError> {
        let refused = |detail| UpdateError::Refused { source: origin.to_owned(), detail };
        let proven = state.verify(&self.initial).map_err(|error| refused(error.detail))?;
        let proven = proven.ok_or_else(|| refused(OTHER.to_owned()))?;
        let before = self.known.as_ref().map(|(_, versions)| *versions);
        let after = proven.versions;
        // A newer root may take keys away that were stolen, and with them the versions that they made.
        let is_older = |before: Versions| {
            after.targets < before.targets
                || after.root < before.root
                || after.root == before.root && after.timestamp < before.timestamp
        };
        if after.targets < self.floor || before.is_some_and(is_older) {
            return Err(refused(format!(
                "it is older than the one that is here: targets {}, timestamp {}, root {}",
                after.targets, after.timestamp, after.root
            )));
        }
        if self.known.as_ref().is_none_or(|(known, _)| known != state) {
            let document = state.to_json();
            // Spaces in metadata are signed by nobody, and what is too large could not be read again.
            TufState::parse(document.as_bytes()).map_err(|error| refused(error.detail))?;
            write(&self.path, document.as_bytes(), None)?;
        }
        Ok(Outcome { path: self.path, before, after: Some(after), current_until: Some(proven.current_until) })
    }
}

/// Fetches and checks everything that is newer than what is stored.
async fn fetch(mirror: Mirror, stored: &Stored, now: Timestamp) -> Result<TufState, sigstore_tuf::Error> {
    let moment = Moment::from_second(now.0)
        .map_err(|error| sigstore_tuf::Error::Malformed(format!("the clock of this host: {error}")))?;
    let store = Arc::new(MemoryStore::new());
    if let Some((state, _)) = &stored.known {
        for root in &state.roots {
            let version = sigstore_tuf::Metadata::<sigstore_tuf::Root>::from_slice(root)?.signed().version;
            store.store(&root_name(version), root)?;
        }
        store.store("timestamp.json", &state.timestamp)?;
        store.store("snapshot.json", &state.snapshot)?;
        store.store("targets.json", &state.targets)?;
        store.store(&format!("targets/{TARGET}"), &state.trusted_root)?;
    }
    let mut updater = Updater::new(mirror, &stored.initial)?;
    let first = updater.trusted().root().version;
    let mut config = sigstore_tuf::UpdaterConfig::default();
    config.max_root_rotations = ROTATIONS;
    config.root_max_length = ROOT_BYTES;
    config.snapshot_max_length = METADATA_BYTES;
    config.targets_max_length = METADATA_BYTES;
    config.target_max_length = u64::try_from(TRUSTED_ROOT_BYTES).unwrap_or(u64::MAX);
    updater = updater.with_config(config).with_store(Arc::clone(&store));
    updater.refresh(moment).await?;
    let unlisted = || sigstore_tuf::Error::TargetNotFound(TARGET.to_owned());
    let targets = updater.trusted().targets_role("targets").ok_or_else(unlisted)?;
    let target = targets.target(TARGET).ok_or_else(unlisted)?.clone();
    let trusted_root = match updater.find_cached_target(&target, TARGET) {
        Some(known) => known,
        None => updater.download_target(&target, TARGET).await?,
    };
    let file = |name: &str| {
        store.load(name)?.ok_or_else(|| sigstore_tuf::Error::Malformed(format!("{name} was not kept")))
    };
    let later = first.saturating_add(1)..=updater.trusted().root().version;
    let mut roots = vec![stored.initial.clone()];
    for version in later {
        roots.push(file(&root_name(version))?);
    }
    Ok(TufState {
        roots,
        timestamp: file("timestamp.json")?,
        snapshot: file("snapshot.json")?,
        targets: file("targets.json")?,
        trusted_root,
    })
}

/// An error with what it came from.
fn in_full(error: &sigstore_tuf::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Where the library keeps the versions of the root.
fn root_name(version: u64) -> String {
    format!("root_history/{version}.root.json")
}

/// A TUF repository over HTTP, with this host's proxies, certificates and limits.
struct Mirror {
    client: Client,
    /// The URL without a slash at its end.
    base: String,
    /// What the certificates and limits are of.
    server: Named,
    proxies: Proxies,
    budget: Budget,
    deadline: Instant,
    /// What went wrong, in more words than the library can repeat.
    failure: Arc<Mutex<Option<Error>>>,
}

impl Mirror {
    fn new(
        url: &str,
        client: Client,
        proxies: Proxies,
        deadline: Instant,
        failure: Arc<Mutex<Option<Error>>>,
    ) -> Result<Self, String> {
        let parsed = reqwest::Url::parse(url).map_err(|error| format!("it is no URL: {error}"))?;
        let has_more = parsed.query().is_some() || parsed.fragment().is_some();
        if !matches!(parsed.scheme(), "http" | "https") || has_more || !parsed.username().is_empty() {
            return Err("it must be an http or https URL without user, query and fragment".to_owned());
        }
        let authority = parsed.host_str().map(|host| match parsed.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        });
        let server = authority.and_then(|authority| Named::parse(&format!("{authority}/tuf")).ok());
        let server = server.ok_or("it has no host name that can be used")?;
        let base = parsed.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client, base, server, proxies, budget: Budget::new(), deadline, failure })
    }

    fn get<'a>(&'a self, path: String, limit: u64) -> FetchFuture<'a> {
        Box::pin(async move {
            let errand =
                Errand { proxies: &self.proxies, ..Errand::new(&self.server, &self.budget, self.deadline) };
            let limit = usize::try_from(limit).unwrap_or(TRUSTED_ROOT_BYTES);
            let url = format!("{}/{path}", self.base);
            self.client.file(&errand, &url, limit).await.map_err(|error| {
                let told = sigstore_tuf::Error::transport(error.to_string());
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                told
            })
        })
    }
}

impl Repository for Mirror {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        self.get(name.to_owned(), max_length)
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        self.get(format!("targets/{path}"), max_length)
    }
}

/// Keeps other updates away from a file. Nobody else may take the lock, or could keep all updates away.
fn lock(path: &Path) -> Result<Flock<File>, UpdateError> {
    let directory = make_directory(path)?;
    let lock = path.with_extension("lock");
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
        match options.clone().create_new(true).mode(0o600).open(&lock) {
            Ok(file) => {
                // Root may update what another user keeps. What was there already may be a link to anything.
                if Uid::effective().is_root() {
                    let owner = directory.metadata()?;
                    fchown(&file, Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())))?;
                }
                Ok(file)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => options.open(&lock),
            Err(error) => Err(error),
        }
    };
    let file = open().map_err(|error: io::Error| unwritable(&lock, &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            unwritable(&lock, &io::Error::other("another update is at work"))
        } else {
            unwritable(&lock, &errno.into())
        }
    })
}

/// The directory of a file, made if it is missing so that everybody may look into it, whatever the umask.
fn make_directory(path: &Path) -> Result<File, UpdateError> {
    let directory = path.parent().unwrap_or(path);
    let open = match File::open(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir(directory).and_then(|()| File::open(directory)).and_then(|open| {
                open.set_permissions(Permissions::from_mode(0o755))?;
                Ok(open)
            })
        }
        other => other,
    };
    open.map_err(|error| unwritable(directory, &error))
}

/// Replaces a file at once, for everybody to read.
fn write(path: &Path, bytes: &[u8], date: Option<SystemTime>) -> Result<(), UpdateError> {
    config::replace(path, bytes, date).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> UpdateError {
    UpdateError::Unwritable { path: path.to_owned(), detail: error.to_string() }
}

/// What cannot be told apart: both end before the root of TUF that is here.
const OTHER: &str =
    "its chain ends before the root of TUF that this host has: it is too old, or of another TUF repository";

/// Most new versions of the root in one update: 256. Sigstore has had sixteen in five years.
const ROTATIONS: u32 = 256;

/// Largest root of TUF: 64 KiB. Sigstore's take 8 KiB.
const ROOT_BYTES: u64 = 64 << 10;

/// Largest snapshot or targets metadata: 256 KiB. Sigstore's take 10 KiB.
const METADATA_BYTES: u64 = 256 << 10;
