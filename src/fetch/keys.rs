//! [`KeyFiles`]: the keys that policies name, read and parsed again only when they have changed.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{Environment, Identity, RegularFile, writable_by_others};
use crate::evaluate::evidence::{Evidence, Needs};
use crate::fetch::host_root::{HostRoots, written};
use crate::fetch::{Error, KEY_FILE_BYTES};
use crate::verify::trust::KeyMaterial;

/// Most key files kept: 256, each at most [`KEY_FILE_BYTES`] long.
const KEPT: usize = 256;

/// Key files by path. What it gives is what reading the file would give (rules P-14, T-23).
#[derive(Debug)]
pub struct KeyFiles {
    host_roots: HostRoots,
    only_ours: bool,
    kept: Mutex<HashMap<String, (Identity, Arc<KeyMaterial>)>>,
    of_policy: Mutex<HashMap<Arc<[u8]>, Arc<KeyMaterial>>>,
}

impl KeyFiles {
    /// Those of the host with this environment; keeps nothing yet.
    pub fn new(environment: Environment) -> Self {
        let (kept, of_policy) = (Mutex::default(), Mutex::default());
        Self { host_roots: HostRoots::new(environment), only_ours: false, kept, of_policy }
    }

    /// The same files and keys, as if none had been read.
    pub fn afresh(&self) -> Self {
        Self { only_ours: self.only_ours, ..Self::new(self.host_roots.environment().clone()) }
    }

    /// The same, but files that others than root and who runs this process can change are errors (T-23).
    pub fn only_ours(self) -> Self {
        Self { only_ours: true, ..self }
    }

    /// Reads everything again when it is needed, and verifies it again.
    pub fn forget(&self) {
        self.host_roots.forget();
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.of_policy.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The contents of the file; a relative path starts in the working directory. It blocks.
    pub fn load(&self, path: &str) -> Result<Arc<KeyMaterial>, Error> {
        self.load_changed(path)
            .map_err(|error| Error::KeyFile { path: path.to_owned(), detail: error.to_string() })
    }

    /// Adds the keys that `needs` names; a file that cannot be read is an error (rules P-14, E-17). It blocks.
    pub fn add(&self, needs: &Needs, evidence: &mut Evidence) -> Result<(), Error> {
        for data in &needs.key_data {
            evidence.key_data.insert(Arc::clone(data), self.of_policy(data));
        }
        for path in &needs.key_files {
            evidence.key_files.insert(path.clone(), self.load(path)?);
        }
        if needs.host_root {
            evidence.host_root = Some(self.host_roots.load()?);
        }
        Ok(())
    }

    /// A key that stands in the policy itself.
    pub fn of_policy(&self, bytes: &Arc<[u8]>) -> Arc<KeyMaterial> {
        let mut kept = self.of_policy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(bytes) {
            return Arc::clone(known);
        }
        if kept.len() >= KEPT {
            kept.clear();
        }
        let material = Arc::new(KeyMaterial::of_policy(bytes));
        kept.insert(Arc::clone(bytes), Arc::clone(&material));
        material
    }

    fn load_changed(&self, path: &str) -> io::Result<Arc<KeyMaterial>> {
        let file = RegularFile::open(Path::new(path))?;
        if self.only_ours
            && let Some(place) = writable_by_others(Path::new(path))
        {
            return Err(io::Error::other(format!(
                "\"{}\" can be changed by others than root",
                place.display()
            )));
        }
        let before = file.settled_identity()?;
        if let Some(identity) = before
            && let Some(material) = self.kept(path, identity)
        {
            return Ok(material);
        }
        let mut material = KeyMaterial::new(path.to_owned(), file.read(KEY_FILE_BYTES)?);
        if let Some(time) = written(&file) {
            material = material.written_at(time);
        }
        let material = Arc::new(material);
        // A file that is being written may have been read in half.
        let after = file.settled_identity()?;
        if let Some(identity) = before.filter(|_| before == after) {
            self.keep(path, identity, Arc::clone(&material));
        }
        Ok(material)
    }

    fn kept(&self, path: &str, identity: Identity) -> Option<Arc<KeyMaterial>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(path).filter(|(known, _)| *known == identity).map(|(_, material)| Arc::clone(material))
    }

    fn keep(&self, path: &str, identity: Identity, material: Arc<KeyMaterial>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(path.to_owned(), (identity, material));
    }
}
