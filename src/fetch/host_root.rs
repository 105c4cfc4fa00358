//! [`HostRoots`]: the trusted root of this host, read and checked again only when its files have changed.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{self, Environment, Identity, RegularFile, TrustedRootFiles, TufRepository};
use crate::fetch::Error;
use crate::verify::Timestamp;
use crate::verify::trusted_root::{HostRoot, TRUSTED_ROOT_BYTES, TrustedRootError};
use crate::verify::tuf::{self, STATE_BYTES, TufState};

/// The trusted root of this host.
#[derive(Debug)]
pub struct HostRoots {
    environment: Environment,
    kept: Mutex<Option<(Key, Arc<HostRoot>)>>,
}

/// What the files are taken for, and which they are.
type Key = (bool, Vec<Identity>);

impl HostRoots {
    /// That of the host with this environment; nothing is read yet.
    pub fn new(environment: Environment) -> Self {
        Self { environment, kept: Mutex::new(None) }
    }

    /// Where the host is.
    pub(in crate::fetch) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Reads it again when it is needed.
    pub(in crate::fetch) fn forget(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The root as the files are now. It blocks.
    ///
    /// Of what an update has stored and what came with this program the later counts (T-31). Whatever is there and
    /// cannot be used is an error: nothing stands in for it.
    pub fn load(&self) -> Result<Arc<HostRoot>, Error> {
        let files = TrustedRootFiles::find(&self.environment)?;
        let before = key(&files);
        if let Some(key) = &before
            && let Some(root) = self.kept(key)
        {
            return Ok(root);
        }
        let root = read(&files)?;
        // A file that is being written may have been read in half.
        if let Some(key) = before.filter(|before| key(&files).as_ref() == Some(before)) {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = Some((key, Arc::clone(&root)));
        }
        Ok(root)
    }

    fn kept(&self, key: &Key) -> Option<Arc<HostRoot>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(known, _)| known == key).map(|(_, root)| Arc::clone(root))
    }
}

/// Which files they are, if all have been left alone long enough for that to tell their contents (T-23).
fn key(files: &TrustedRootFiles) -> Option<Key> {
    let (is_own, files) = match files {
        TrustedRootFiles::Own(_, file) => (true, vec![file]),
        TrustedRootFiles::Tuf { repository, state } => {
            let files = [repository.initial.as_ref(), state.as_ref()].into_iter().flatten();
            (false, files.map(|(_, file)| file).collect())
        }
    };
    let identities = files.into_iter().map(|file| file.settled_identity().ok().flatten());
    Some((is_own, identities.collect::<Option<_>>()?))
}

fn read(files: &TrustedRootFiles) -> Result<Arc<HostRoot>, Error> {
    let (repository, state) = match files {
        TrustedRootFiles::Own(path, file) => {
            let bytes = bytes(path, file, TRUSTED_ROOT_BYTES)?;
            let source = path.to_string_lossy().into_owned();
            let root = HostRoot::of_file(source, &bytes, written(file));
            return root.map(Arc::new).map_err(|error| unusable(path, error));
        }
        TrustedRootFiles::Tuf { repository, state } => (repository, state),
    };
    let proven = match state {
        Some((path, file)) => {
            let document = bytes(path, file, STATE_BYTES)?;
            let initial = initial(repository)?;
            let proven = TufState::parse(&document).and_then(|state| state.verify(&initial));
            let proven = proven.map_err(|error| unusable(path, error))?;
            proven.map(|proven| HostRoot::of_tuf(path.to_string_lossy().into_owned(), proven))
        }
        None => None,
    };
    match (&repository.initial, proven) {
        (None, Some(stored)) if stored.versions >= built_in()?.versions => Ok(Arc::new(stored)),
        (None, _) => built_in(),
        (Some(_), Some(stored)) => Ok(Arc::new(stored)),
        (Some((path, _)), None) => Err(Error::Config(config::Error::TrustedRoot {
            path: path.clone(),
            detail: "no update has fetched a trusted root by it yet".to_owned(),
        })),
    }
}

/// The root of TUF that this host has. It can be read once.
pub(in crate::fetch) fn initial(repository: &TufRepository) -> Result<Vec<u8>, Error> {
    match &repository.initial {
        Some((path, file)) => bytes(path, file, TRUSTED_ROOT_BYTES),
        None => Ok(tuf::built_in_root().to_vec()),
    }
}

fn built_in() -> Result<Arc<HostRoot>, Error> {
    HostRoot::built_in().map(Arc::new).map_err(|error| unusable(Path::new("vouchd"), error))
}

/// When a file was last written. Before Sigstore there was no trusted root: systems made of images set such times.
pub fn written(file: &RegularFile) -> Option<Timestamp> {
    use std::os::unix::fs::MetadataExt;
    const YEAR_2020: i64 = 1_577_836_800;
    Some(file.metadata().mtime()).filter(|time| *time >= YEAR_2020).map(Timestamp)
}

fn bytes(path: &Path, file: &RegularFile, limit: usize) -> Result<Vec<u8>, Error> {
    file.read(limit).map_err(|error| {
        Error::Config(config::Error::TrustedRoot { path: path.to_owned(), detail: error.to_string() })
    })
}

fn unusable(path: &Path, error: TrustedRootError) -> Error {
    Error::Config(config::Error::TrustedRoot { path: path.to_owned(), detail: error.detail })
}
