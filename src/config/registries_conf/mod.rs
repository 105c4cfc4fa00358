//! [`RegistriesConf`]: where images are fetched from, and what short names mean; containers-registries.conf(5).

mod document;
mod endpoints;
mod short_names;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::file::add_drop_ins;
use super::{CONFIGURATION_BYTES, Environment, Error, RegularFile, is_absent};
use crate::diagnostic::escape;
use crate::reference::Named;
use document::{Document, Registry};

pub use endpoints::Endpoint;
pub use short_names::{ShortName, ShortNameProblem, ShortNames, is_short_name};

/// Which registries.conf is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistriesConfSource {
    /// This file and no other, without a cache of short names (rule M-1).
    Explicit(PathBuf),
    /// The user's, the administrator's and the vendor's (rule M-1).
    Search(Environment),
}

/// All files of registries.conf as one (rule M-2).
#[derive(Clone, Debug)]
pub struct RegistriesConf {
    files: Vec<PathBuf>,
    /// By prefix.
    registries: BTreeMap<String, (Registry, PathBuf)>,
    /// The registries to complete short names with, and the file that names them.
    search: Option<(Vec<String>, PathBuf)>,
    credential_helpers: Vec<String>,
    credential_helpers_file: Option<PathBuf>,
    /// By short name.
    aliases: BTreeMap<String, Alias>,
    /// The machine-written aliases; only short names have to do with them, and with what is wrong with them.
    cached_aliases: Result<BTreeMap<String, Alias>, Error>,
}

/// What stands for a short name, if it is not erased (rule N-2).
#[derive(Clone, Debug)]
struct Alias {
    image: Option<Named>,
    file: PathBuf,
}

/// One `[[registry]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryEntry {
    /// Its prefix, written or taken from its location.
    pub prefix: String,
    /// The file.
    pub file: PathBuf,
}

impl fmt::Display for RegistryEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "registry prefix \"{}\" in \"{}\"",
            escape(&self.prefix),
            escape(&self.file.to_string_lossy())
        )
    }
}

impl RegistriesConf {
    /// Finds the files and reads them; one that cannot be used makes all unusable.
    ///
    /// Only a path that is truly absent is passed over; whatever else is wrong is an error (T-23).
    pub fn load(source: &RegistriesConfSource) -> Result<Self, Error> {
        let mut all = Self {
            files: Vec::new(),
            registries: BTreeMap::new(),
            search: None,
            credential_helpers: vec![AUTH_FILES.to_owned()],
            credential_helpers_file: None,
            aliases: BTreeMap::new(),
            cached_aliases: Ok(BTreeMap::new()),
        };
        let environment = match source {
            RegistriesConfSource::Explicit(path) => {
                all.add(path, &open(path)?)?;
                return Ok(all);
            }
            RegistriesConfSource::Search(environment) => environment,
        };
        let user = environment.user.as_ref();
        if let Some(path) = user.and_then(|user| user.registries_conf.as_deref()) {
            all.add(path, &open(path)?)?;
        } else {
            for path in main_files(environment) {
                if let Some(file) = find(&path)? {
                    all.add(&path, &file)?;
                    break;
                }
            }
            for path in drop_ins(environment)? {
                if let Some(file) = find(&path)? {
                    all.add(&path, &file)?;
                }
            }
        }
        if let Some(path) = user.and_then(|user| user.registries_conf_override.as_deref()) {
            all.add(path, &open(path)?)?;
        }
        if let Some(path) = short_names::cache(environment) {
            all.cached_aliases = read_cache(&path);
        }
        Ok(all)
    }

    /// Every reason for which [`RegistriesConf::load`] fails: the first, and the first of each drop-in.
    pub fn faults(source: &RegistriesConfSource) -> Vec<Error> {
        let Err(first) = Self::load(source) else { return Vec::new() };
        let drop_ins = match source {
            RegistriesConfSource::Search(environment)
                if environment.user.as_ref().is_none_or(|user| user.registries_conf.is_none()) =>
            {
                drop_ins(environment).ok()
            }
            RegistriesConfSource::Explicit(_) | RegistriesConfSource::Search(_) => None,
        };
        let fault = |path: PathBuf| match find(&path) {
            Ok(file) => read(&path, &file?).and_then(|text| Document::parse(&path, &text)).err(),
            Err(error) => Some(error),
        };
        let others = drop_ins.into_iter().flatten().filter_map(fault).filter(|error| *error != first);
        let others: Vec<Error> = others.collect();
        std::iter::once(first).chain(others).collect()
    }

    /// Where credentials are asked for, in this order; `containers-auth.json` stands for the files (rule U-3).
    pub fn credential_helpers(&self) -> &[String] {
        &self.credential_helpers
    }

    /// The files that were read, but for the cache of short names.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The prefixes of its entries.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.registries.keys().map(String::as_str)
    }

    /// The file that says so, if it is not the default.
    pub fn credential_helpers_file(&self) -> &[PathBuf] {
        self.credential_helpers_file.as_slice()
    }

    /// Rule M-2: what a later file sets counts.
    fn add(&mut self, path: &Path, file: &RegularFile) -> Result<(), Error> {
        let document = Document::parse(path, &read(path, file)?)?;
        self.files.push(path.to_owned());
        for registry in document.registries {
            self.registries.insert(registry.prefix.clone(), (registry, path.to_owned()));
        }
        if let Some(search) = document.search {
            self.search = Some((search, path.to_owned()));
        }
        if let Some(mut helpers) = document.credential_helpers {
            if helpers.is_empty() {
                helpers.push(AUTH_FILES.to_owned());
            }
            self.credential_helpers = helpers;
            self.credential_helpers_file = Some(path.to_owned());
        }
        self.aliases.extend(aliases_of(document.aliases, path));
        Ok(())
    }
}

/// The first that exists counts (rule M-1).
fn main_files(environment: &Environment) -> impl Iterator<Item = PathBuf> {
    let system = ["/etc/containers/registries.conf", "/usr/share/containers/registries.conf"];
    let system = system.map(|path| environment.system_path(path));
    environment.user_path("registries.conf").into_iter().chain(system)
}

/// In the order of their base names; of several with one name the first directory's counts (rule M-1).
fn drop_ins(environment: &Environment) -> Result<impl Iterator<Item = PathBuf>, Error> {
    let names = match environment.uid {
        0 => vec!["registries.rootful.conf.d".to_owned()],
        uid => vec![format!("registries.rootless.conf.d/{uid}"), "registries.rootless.conf.d".to_owned()],
    };
    let system = ["/etc/containers", "/usr/share/containers"].into_iter().flat_map(|base| {
        let base = environment.system_path(base);
        names.iter().map(String::as_str).chain(["registries.conf.d"]).map(move |name| base.join(name))
    });
    let mut files = BTreeMap::new();
    for directory in environment.user_path("registries.conf.d").into_iter().chain(system) {
        let failed = |detail: String| Error::RegistriesConf { path: directory.clone(), at: None, detail };
        if !is_absent(&directory).map_err(failed)? {
            add_drop_ins(&directory, ".conf", &mut files).map_err(|error| failed(error.to_string()))?;
        }
    }
    Ok(files.into_values())
}

/// The aliases that engines have written down; there need not be any.
fn read_cache(path: &Path) -> Result<BTreeMap<String, Alias>, Error> {
    match find(path)? {
        Some(file) => {
            let aliases = Document::parse_aliases(path, &read(path, &file)?)?;
            Ok(aliases_of(aliases, path).collect())
        }
        None => Ok(BTreeMap::new()),
    }
}

fn aliases_of(
    aliases: BTreeMap<String, Option<Named>>,
    path: &Path,
) -> impl Iterator<Item = (String, Alias)> {
    aliases.into_iter().map(|(name, image)| (name, Alias { image, file: path.to_owned() }))
}

fn open(path: &Path) -> Result<RegularFile, Error> {
    RegularFile::open(path).map_err(|error| unreadable(path, error.to_string()))
}

/// As [`open`]; nothing if nothing has this name (T-23).
fn find(path: &Path) -> Result<Option<RegularFile>, Error> {
    if is_absent(path).map_err(|detail| unreadable(path, detail))? { Ok(None) } else { open(path).map(Some) }
}

fn read(path: &Path, file: &RegularFile) -> Result<String, Error> {
    let bytes = file.read(CONFIGURATION_BYTES).map_err(|error| unreadable(path, error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| unreadable(path, error.utf8_error().to_string()))
}

fn unreadable(path: &Path, detail: String) -> Error {
    Error::RegistriesConf { path: path.to_owned(), at: None, detail }
}

/// The helper that is none: the files of containers-auth.json(5).
const AUTH_FILES: &str = "containers-auth.json";
