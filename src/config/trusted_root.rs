//! [`TrustedRootFiles`]: which files say what the trusted root of this host is (T-31).

use std::path::{Path, PathBuf};

use super::{Environment, Error, RegularFile, TrustedRootSettings, VouchdToml, check_owner, is_absent};

/// The trusted root that the administrator put there.
const OWN: &str = "/etc/vouchd/trusted_root.json";

/// What `vouchd trust update` has stored.
const STATE: &str = "/var/lib/vouchd-trust/sigstore.json";

/// The files that there are at the moment, open.
#[derive(Debug)]
pub enum TrustedRootFiles {
    /// The administrator's own trusted root, which counts in place of all others.
    Own(PathBuf, RegularFile),
    /// What an update has stored, if there has been one.
    Tuf {
        /// Where the updates come from.
        repository: Box<TufRepository>,
        /// What is stored. Anybody may have written it: it proves itself.
        state: Option<(PathBuf, RegularFile)>,
    },
}

/// A TUF repository of trusted roots.
#[derive(Debug)]
pub struct TufRepository {
    /// Its URL; `None` for that of Sigstore's public instance.
    pub mirror: Option<String>,
    /// The root of TUF with which its chain begins; `None` for the one in this program.
    pub initial: Option<(PathBuf, RegularFile)>,
}

impl TrustedRootFiles {
    /// Finds them: the file that vouchd.toml names, else `/etc/vouchd/trusted_root.json`, else the state of updates.
    ///
    /// Only what is truly absent is passed over, and what is not proven must be root's (T-23).
    pub fn find(environment: &Environment) -> Result<Self, Error> {
        let settings = VouchdToml::load(environment)?.trusted_root;
        if let Some(path) = &settings.path {
            let path = absolute(environment, path)?;
            return Ok(Self::Own(path.clone(), open(environment, &path)?));
        }
        let own = Self::own_path(environment);
        if !is_absent(&own).map_err(|detail| unusable(&own, detail))? {
            return Ok(Self::Own(own.clone(), open(environment, &own)?));
        }
        let state = Self::state_path(environment);
        let state = if is_absent(&state).map_err(|detail| unusable(&state, detail))? {
            None
        } else {
            let file = RegularFile::open(&state).map_err(|error| unusable(&state, error.to_string()))?;
            Some((state, file))
        };
        Ok(Self::Tuf { repository: Box::new(TufRepository::of(environment, settings)?), state })
    }

    /// Where the administrator's own trusted root is, unless vouchd.toml names another place.
    pub fn own_path(environment: &Environment) -> PathBuf {
        environment.system_path(OWN)
    }

    /// Where updates are stored.
    pub fn state_path(environment: &Environment) -> PathBuf {
        environment.system_path(STATE)
    }
}

impl TufRepository {
    /// The one that vouchd.toml names, whose initial root must be root's (T-31).
    ///
    /// Another mirror may have the same content, so it needs no other root.
    pub fn find(environment: &Environment) -> Result<Self, Error> {
        Self::of(environment, VouchdToml::load(environment)?.trusted_root)
    }

    fn of(environment: &Environment, settings: TrustedRootSettings) -> Result<Self, Error> {
        let initial = match settings.tuf_root {
            Some(path) => {
                let path = absolute(environment, &path)?;
                let file = open(environment, &path)?;
                Some((path, file))
            }
            None => None,
        };
        Ok(Self { mirror: settings.tuf_mirror, initial })
    }
}

fn absolute(environment: &Environment, path: &Path) -> Result<PathBuf, Error> {
    match path.to_str() {
        Some(text) if path.is_absolute() => Ok(environment.system_path(text)),
        Some(_) | None => Err(unusable(path, "the path must be absolute".to_owned())),
    }
}

fn open(environment: &Environment, path: &Path) -> Result<RegularFile, Error> {
    let file = RegularFile::open(path).map_err(|error| unusable(path, error.to_string()))?;
    check_owner(&environment.root, path, &file).map_err(|detail| unusable(path, detail))?;
    Ok(file)
}

fn unusable(path: &Path, detail: String) -> Error {
    Error::TrustedRoot { path: path.to_owned(), detail }
}
