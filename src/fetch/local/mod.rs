//! Images on this host: where a name with a path leads, and what is read there.

mod archive;
mod dir;
mod docker_archive;
mod layout;
mod storage;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nix::fcntl::OFlag;

use crate::config::{Environment, RegularFile, StorageConf, clean};
use crate::digest::Digest;
use crate::evaluate::evidence::{LocatedSignature, ManifestEvidence};
use crate::fetch::{Budget, Error, referrers};
use crate::json::{Limits, Value};
use crate::manifest::Platform;
use crate::reference::{
    Found, ImageName, ImageReference, LayoutImage, Lookup, OSTREE_REPOSITORY, Place, ShortId, Store,
};

pub use dir::{read_dir, read_dir_signatures};
pub use layout::{read_layout, read_layout_instance};

/// Indexes and configurations nest some five levels; T-28.
const LIMITS: Limits = Limits { depth: 64, values: 100_000 };

/// An image that can be read on this host. Clones share what was found when it was opened.
#[derive(Clone, Debug)]
pub struct Image {
    source: Source,
    budget: Budget,
    deadline: Instant,
}

#[derive(Clone, Debug)]
enum Source {
    Dir(String),
    DockerArchive { path: String, image: LayoutImage },
    Layout { path: String, image: LayoutImage },
    OciArchive { path: String, image: LayoutImage },
    Storage(Arc<storage::StoredImage>),
}

impl Image {
    /// Finds the image; nothing if it is in a place that this version does not read. It blocks.
    ///
    /// `platform` tells apart the images of a store that came from one index.
    pub fn open(
        image: &ImageReference,
        platform: &Platform,
        budget: &Budget,
        deadline: Instant,
    ) -> Result<Option<Self>, Error> {
        let source = match image.place() {
            Place::Registry | Place::Elsewhere => return Ok(None),
            Place::Dir(path) => Source::Dir(path.clone()),
            Place::DockerArchive { path, image } => {
                Source::DockerArchive { path: path.clone(), image: image.clone() }
            }
            Place::Layout { path, image } => Source::Layout { path: path.clone(), image: image.clone() },
            Place::OciArchive { path, image } => {
                Source::OciArchive { path: path.clone(), image: image.clone() }
            }
            Place::Storage { store, id, known } => {
                let (named, id, known) = (image.docker_reference(), id.as_deref(), known.as_deref());
                Source::Storage(Arc::new(storage::find(store, named, id, known, platform, budget)?))
            }
        };
        Ok(Some(Self { source, budget: budget.clone(), deadline }))
    }

    /// The file or directory, for messages.
    pub fn path(&self) -> &str {
        match &self.source {
            Source::Dir(path)
            | Source::DockerArchive { path, .. }
            | Source::Layout { path, .. }
            | Source::OciArchive { path, .. } => path,
            Source::Storage(image) => image.path(),
        }
    }

    /// The manifest that the name means, or that of one instance of its index. It blocks.
    pub fn manifest(&self, instance: Option<&Digest>) -> Result<ManifestEvidence, Error> {
        let budget = &self.budget;
        match (&self.source, instance) {
            (Source::Dir(path), instance) => read_dir(path, instance, budget),
            (Source::DockerArchive { path, image }, None) => {
                docker_archive::read(Path::new(path), image, budget, self.deadline)
            }
            (Source::DockerArchive { path, .. }, Some(_)) => {
                Err(invalid(Path::new(path), "a Docker archive has no index"))
            }
            (Source::Layout { path, image }, None) => read_layout(path, image, budget),
            (Source::Layout { path, .. }, Some(digest)) => read_layout_instance(path, digest, budget),
            (Source::OciArchive { path, image }, None) => {
                layout::read_archive(Path::new(path), image, budget, self.deadline)
            }
            (Source::OciArchive { path, .. }, Some(digest)) => {
                layout::read_archive_instance(Path::new(path), digest, budget, self.deadline)
            }
            (Source::Storage(image), instance) => image.manifest(instance, budget),
        }
    }

    /// The signatures stored for that manifest; layouts and archives have no place for those that other tools know
    /// (rule B-6). It blocks.
    pub fn signatures(&self, instance: Option<&Digest>) -> Result<Vec<LocatedSignature>, Error> {
        match &self.source {
            Source::Dir(path) => read_dir_signatures(path, instance, &self.budget),
            Source::DockerArchive { .. } | Source::Layout { .. } | Source::OciArchive { .. } => {
                Ok(Vec::new())
            }
            Source::Storage(image) => image.signatures(instance, &self.budget),
        }
    }

    /// The signatures in manifests of the same layout that refer to the one with this digest. It blocks.
    pub fn referrers(&self, digest: &Digest) -> referrers::Found {
        match &self.source {
            Source::Dir(_) | Source::DockerArchive { .. } | Source::Storage(_) => referrers::Found::default(),
            Source::Layout { path, .. } => layout::referrers(Path::new(path), digest, &self.budget),
            Source::OciArchive { path, .. } => {
                layout::archive_referrers(Path::new(path), digest, &self.budget, self.deadline)
            }
        }
    }

    /// Everything in the same layout that refers to the manifest with this digest; nothing where there is no place for
    /// it. It blocks.
    pub(in crate::fetch) fn survey(&self, digest: &Digest) -> Option<referrers::Survey> {
        match &self.source {
            Source::Dir(_) | Source::DockerArchive { .. } | Source::Storage(_) => None,
            Source::Layout { path, .. } => Some(layout::survey(Path::new(path), digest, &self.budget)),
            Source::OciArchive { path, .. } => {
                Some(layout::archive_survey(Path::new(path), digest, &self.budget, self.deadline))
            }
        }
    }
}

/// Looks up what the name needs to be a reference; relative paths start in the working directory. It blocks.
pub fn resolve(environment: &Environment, name: ImageName) -> Result<ImageReference, Error> {
    let current = std::env::current_dir().map_err(|error| failed(Path::new("."), &error))?;
    resolve_in(&current, environment, name)
}

/// As [`resolve`], with relative paths starting in `current`.
pub fn resolve_in(
    current: &Path,
    environment: &Environment,
    name: ImageName,
) -> Result<ImageReference, Error> {
    let found = match name.lookup() {
        Lookup::Nothing => Found::Nothing,
        Lookup::Path(path) => Found::Path(resolve_path(current, path)?),
        Lookup::File(path) => Found::Path(text(&current.join(path))?),
        Lookup::Files(files) => {
            for file in files {
                open(&current.join(file)).map_err(|error| failed(Path::new(file), &error))?;
            }
            Found::Nothing
        }
        Lookup::Repository(path) => Found::Path(resolve_repository(current, path)?),
        Lookup::Store { driver, root, images, short } => {
            let store = resolve_store(environment, driver, root, images)?;
            let id = short.map(|short| resolve_id(&store, short)).transpose()?.flatten();
            Found::Store(store, id)
        }
    };
    name.into_reference(found)
        .ok_or_else(|| invalid(current, "the lookup has another kind of answer than the question"))
}

/// Finds the image of a store that the name leads to: its ID is part of the scope, as in the reference (rule S-12).
///
/// Other images stay as they are. It blocks.
pub fn identify(image: ImageReference, platform: &Platform) -> Result<ImageReference, Error> {
    let Place::Storage { store, id: None, known: None } = image.place() else { return Ok(image) };
    let named = image.docker_reference();
    let found = storage::find(store, named, None, None, platform, &Budget::new())?;
    Ok(image.with_known_id(found.id()))
}

fn text(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| invalid(path, "it leads to a path that is not UTF-8"))
}

/// As in the reference when it had the transport: only the usual repository may be absent, its parent too.
fn resolve_repository(current: &Path, path: &str) -> Result<String, Error> {
    let absent = fs::symlink_metadata("/ostree").is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let resolved =
        if path == OSTREE_REPOSITORY && absent { path.to_owned() } else { resolve_path(current, path)? };
    if resolved.contains(':') {
        return Err(invalid(Path::new(path), "the path of an OSTree repository must have no colon"));
    }
    Ok(resolved)
}

/// Opens without waiting for the writer of a FIFO.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path)
}

/// The absolute path without symbolic links; only the last part may be missing (rule S-13).
///
/// As in the reference, `..` takes away the part before it, even one that is a link. Stricter than the
/// reference, which then reads the other directory: if there is one, it must be the same.
fn resolve_path(current: &Path, text: &str) -> Result<String, Error> {
    let path = current.join(text);
    let failed = |error: io::Error| failed(Path::new(text), &error);
    let resolved = match fs::symlink_metadata(&path) {
        Ok(_) => {
            let resolved = fs::canonicalize(clean(&path)).map_err(failed)?;
            if fs::canonicalize(&path).map_err(failed)? != resolved {
                return Err(invalid(Path::new(text), "its \"..\" follows a symbolic link to elsewhere"));
            }
            resolved
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let whole = path.to_str().unwrap_or_default();
            let (parent, last) = whole.rsplit_once('/').unwrap_or_default();
            let parent = fs::canonicalize(clean(Path::new(&format!("{parent}/")))).map_err(failed)?;
            if matches!(last, "" | "." | "..") || !parent.is_dir() {
                return Err(failed(error));
            }
            parent.join(last)
        }
        Err(error) => return Err(failed(error)),
    };
    self::text(&resolved)
}

/// The store of containers-storage(5), by the name or else by storage.conf.
fn resolve_store(
    environment: &Environment,
    driver: Option<&str>,
    root: Option<&str>,
    images: &[String],
) -> Result<Store, Error> {
    let conf = match root {
        None => StorageConf::load(environment)?,
        Some(root) if !root.starts_with('/') => {
            return Err(invalid(Path::new(root), "the root of a store must be an absolute path"));
        }
        Some(root) => {
            let root = clean(Path::new(root));
            let images = images.iter().map(|path| clean(Path::new(path)));
            StorageConf {
                driver: driver.map(str::to_owned),
                driver_priority: Vec::new(),
                images: std::iter::once(root.clone()).chain(images).collect(),
                root,
            }
        }
    };
    let driver = match conf.driver.as_deref() {
        Some("overlay2") => "overlay".to_owned(),
        Some(driver) => driver.to_owned(),
        None => storage::guess_driver(&conf.root, &conf.driver_priority)?,
    };
    if driver.is_empty() || !driver.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(invalid(&conf.root, &format!("\"{driver}\" is no graph driver")));
    }
    let images = conf.images.iter().map(|path| text(path)).collect::<Result<_, _>>()?;
    Ok(Store { driver, root: text(&conf.root)?, images })
}

/// The ID that begins so, if exactly one does.
fn resolve_id(store: &Store, short: &ShortId) -> Result<Option<String>, Error> {
    let found = storage::find_id(store, short.text())?;
    let needed = match short {
        ShortId::After(_) => true,
        // A whole ID can be no name.
        ShortId::Whole(text) => text.len() == 64,
    };
    if found.is_none() && needed {
        let detail = format!("no image, or more than one, has an ID that begins with {}", short.text());
        return Err(invalid(Path::new(&store.root), &detail));
    }
    Ok(found)
}

/// The member of an object that is called `name`.
fn member<'v, 'a>(object: &'v Value<'a>, name: &str) -> Result<Option<&'v Value<'a>>, &'static str> {
    object.members().ok_or("something in it is no object")?;
    object.member(name).map_err(|_| "a member is there twice, or is misspelled")
}

fn read(path: &Path, limit: usize, budget: &Budget) -> Result<Vec<u8>, Error> {
    read_if_there(path, limit, budget)?.ok_or_else(|| invalid(path, "there is no such file"))
}

fn read_if_there(path: &Path, limit: usize, budget: &Budget) -> Result<Option<Vec<u8>>, Error> {
    let Some(file) = RegularFile::find(path).map_err(|error| failed(path, &error))? else { return Ok(None) };
    let bytes = file.read(limit).map_err(|error| failed(path, &error))?;
    budget.bytes(bytes.len())?;
    Ok(Some(bytes))
}

fn failed(path: &Path, error: &io::Error) -> Error {
    invalid(path, &error.to_string())
}

fn invalid(path: &Path, detail: &str) -> Error {
    Error::Local { path: path.to_string_lossy().into_owned(), detail: detail.to_owned() }
}

/// The error of a read that may have passed its deadline.
fn unreadable(path: &Path, error: &io::Error) -> Error {
    if error.kind() == ErrorKind::TimedOut {
        Error::TimedOut { waiting_for: format!("the contents of \"{}\"", path.display()) }
    } else {
        failed(path, error)
    }
}
