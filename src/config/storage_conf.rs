//! [`StorageConf`]: where containers-storage keeps its images; containers-storage.conf(5).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{CONFIGURATION_BYTES, Environment, Error, RegularFile, clean};
use crate::reference::image_stores;

/// The settings of the user's environment; containers-storage.conf(5), ENVIRONMENT VARIABLES.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageVariables {
    /// `$CONTAINERS_STORAGE_CONF`: this file and no other.
    pub conf: Option<PathBuf>,
    /// `$CONTAINERS_STORAGE_CONF_OVERRIDE`: a file that is read after all others.
    pub conf_override: Option<PathBuf>,
    /// `$STORAGE_DRIVER`.
    pub driver: Option<String>,
    /// `$STORAGE_OPTS`, in place of all options of the files.
    pub options: Option<String>,
    /// `$XDG_DATA_HOME`.
    pub xdg_data_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
}

/// The store that a name without one means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageConf {
    /// The graph driver; absent where the store itself shows it.
    pub driver: Option<String>,
    /// The drivers to look for, the preferred one first; empty for the built-in order.
    pub driver_priority: Vec<String>,
    /// The graph root.
    pub root: PathBuf,
    /// Directories that hold images, in the order of the search.
    pub images: Vec<PathBuf>,
}

impl StorageConf {
    /// Reads the files that count: the first of the user's, the administrator's and the vendor's, then the drop-ins.
    ///
    /// As root the user's count only where the environment has a user (T-22). It blocks.
    pub fn load(environment: &Environment) -> Result<Self, Error> {
        let mut settings = Settings::default();
        for file in files(environment)? {
            let text = fs_read(&file)?;
            settings.apply(&text).map_err(|detail| Error::StorageConf { path: file.clone(), detail })?;
        }
        settings.finish(environment)
    }
}

/// The files to apply, in order.
fn files(environment: &Environment) -> Result<Vec<PathBuf>, Error> {
    let variables = environment.user.as_ref().map(|user| &user.storage);
    let mut files = match variables.and_then(|variables| variables.conf.clone()) {
        Some(only) => vec![only],
        None => main_file(environment)?.into_iter().chain(drop_ins(environment)?).collect(),
    };
    files.extend(variables.and_then(|variables| variables.conf_override.clone()));
    Ok(files)
}

/// Only a path that is truly absent leads to the next one (T-23).
fn main_file(environment: &Environment) -> Result<Option<PathBuf>, Error> {
    let candidates = [
        environment.user_path("storage.conf"),
        Some(environment.system_path("/etc/containers/storage.conf")),
        Some(environment.system_path("/usr/share/containers/storage.conf")),
    ];
    for path in candidates.into_iter().flatten() {
        match fs::symlink_metadata(&path) {
            Ok(_) => return Ok(Some(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::StorageConf { path, detail: error.to_string() }),
        }
    }
    Ok(None)
}

/// The drop-ins by base name: of several with one name the last directory's counts.
fn drop_ins(environment: &Environment) -> Result<Vec<PathBuf>, Error> {
    let names = match environment.uid {
        0 => vec!["storage.conf.d".to_owned(), "storage.rootful.conf.d".to_owned()],
        uid => vec![
            "storage.conf.d".to_owned(),
            "storage.rootless.conf.d".to_owned(),
            format!("storage.rootless.conf.d/{uid}"),
        ],
    };
    let system = ["/usr/share/containers", "/etc/containers"].into_iter().flat_map(|base| {
        let base = environment.system_path(base);
        names.iter().map(move |name| base.join(name))
    });
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in system.chain(environment.user_path("storage.conf.d")) {
        let failed =
            |error: std::io::Error| Error::StorageConf { path: directory.clone(), detail: error.to_string() };
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            // As in the reference, a symbolic link is no drop-in.
            if name.as_bytes().ends_with(b".conf") && entry.file_type().map_err(failed)?.is_file() {
                files.insert(name, entry.path());
            }
            if files.len() > FILES {
                let detail = format!("there are more than {FILES} files");
                return Err(Error::StorageConf { path: directory.clone(), detail });
            }
        }
    }
    Ok(files.into_values().collect())
}

fn fs_read(path: &Path) -> Result<String, Error> {
    let failed = |detail: String| Error::StorageConf { path: path.to_owned(), detail };
    let file = RegularFile::open(path).map_err(|error| failed(error.to_string()))?;
    let bytes = file.read(CONFIGURATION_BYTES).map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".to_owned()))
}

/// What the files say; a later file replaces what it names. Empty means that nothing is said.
#[derive(Debug, Default)]
struct Settings {
    driver: String,
    driver_priority: List,
    graph_root: String,
    rootless_storage_path: String,
    image_store: String,
    additional: List,
}

impl Settings {
    fn apply(&mut self, text: &str) -> Result<(), String> {
        let root: Table = text.parse().map_err(|error: toml::de::Error| {
            error.message().lines().next().unwrap_or("it is not TOML").to_owned()
        })?;
        let Some(storage) = table(&root, "storage")? else { return Ok(()) };
        for (name, setting) in [
            ("driver", &mut self.driver),
            ("graphroot", &mut self.graph_root),
            ("rootless_storage_path", &mut self.rootless_storage_path),
            ("imagestore", &mut self.image_store),
        ] {
            if let Some(value) = lookup(storage, name)? {
                *setting = value.as_str().ok_or_else(|| format!("\"{name}\" is no string"))?.to_owned();
            }
        }
        self.driver_priority.apply(storage, "driver_priority")?;
        if let Some(options) = table(storage, "options")? {
            self.additional.apply(options, "additionalimagestores")?;
        }
        Ok(())
    }

    fn finish(self, environment: &Environment) -> Result<StorageConf, Error> {
        let unusable = |detail: String| Error::StorageConf { path: PathBuf::from("storage.conf"), detail };
        let variables = environment.user.as_ref().map(|user| &user.storage);
        let rootless = environment.uid != 0;
        let root = if !self.graph_root.is_empty() {
            expand(&self.graph_root, environment).map_err(unusable)?
        } else if rootless && !self.rootless_storage_path.is_empty() {
            expand(&self.rootless_storage_path, environment).map_err(unusable)?
        } else if rootless {
            data_home(environment)
                .ok_or_else(|| unusable("there is no home directory".to_owned()))?
                .join("containers/storage")
        } else {
            PathBuf::from("/var/lib/containers/storage")
        };
        let additional = match variables.and_then(|variables| variables.options.as_deref()) {
            Some(options) => image_stores(options),
            None => self.additional.values,
        };
        let image_store = Some(self.image_store).filter(|store| !store.is_empty());
        let images = image_store.into_iter().map(PathBuf::from).chain([root.clone()]);
        let images: Vec<PathBuf> = images.chain(additional.into_iter().map(PathBuf::from)).collect();
        if let Some(relative) = images.iter().find(|path| !path.is_absolute()) {
            return Err(unusable(format!("\"{}\" is not an absolute path", relative.display())));
        }
        let driver = variables.and_then(|variables| variables.driver.clone()).unwrap_or(self.driver);
        Ok(StorageConf {
            driver: Some(driver).filter(|driver| !driver.is_empty()),
            driver_priority: self.driver_priority.values,
            root,
            images: images.iter().map(|path| clean(path)).collect(),
        })
    }
}

/// An array of strings, to which later files append once a file has said `{append = true}`.
#[derive(Debug, Default)]
struct List {
    values: Vec<String>,
    append: bool,
}

impl List {
    fn apply(&mut self, table: &Table, name: &str) -> Result<(), String> {
        let Some(value) = lookup(table, name)? else { return Ok(()) };
        let malformed = || format!("\"{name}\" is no array of strings");
        let mut values = Vec::new();
        for item in value.as_array().ok_or_else(malformed)? {
            match (item.as_str(), item.as_table()) {
                (Some(text), _) => values.push(text.to_owned()),
                (None, Some(attributes)) => {
                    for (key, value) in attributes {
                        self.append = match (key.as_str(), value.as_bool()) {
                            ("append", Some(append)) => append,
                            _ => return Err(malformed()),
                        };
                    }
                }
                (None, None) => return Err(malformed()),
            }
        }
        if self.append {
            self.values.extend(values);
        } else {
            self.values = values;
        }
        Ok(())
    }
}

fn table<'t>(parent: &'t Table, name: &str) -> Result<Option<&'t Table>, String> {
    lookup(parent, name)?
        .map(|value| value.as_table().ok_or_else(|| format!("\"{name}\" is no table")))
        .transpose()
}

/// Stricter than the reference, which takes a key in any case where there is none that is spelled right.
fn lookup<'t>(table: &'t Table, name: &str) -> Result<Option<&'t Value>, String> {
    match table.keys().find(|key| key.as_str() != name && key.eq_ignore_ascii_case(name)) {
        Some(misspelled) => Err(format!("\"{misspelled}\" must be written \"{name}\"")),
        None => Ok(table.get(name)),
    }
}

/// The path with variables in place, and without symbolic links if it is there.
///
/// Stricter than the reference, for which a variable that it does not find is empty.
fn expand(text: &str, environment: &Environment) -> Result<PathBuf, String> {
    let mut out = OsString::new();
    let mut pieces = text.split('$');
    out.push(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (name, rest) = match piece.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or_else(|| format!("\"{text}\" lacks a \"}}\""))?,
            None => {
                let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                piece.split_at(end.unwrap_or(piece.len()))
            }
        };
        let value = variable(name, environment)
            .ok_or_else(|| format!("the variable \"${name}\" does not count here, or is not set"))?;
        out.push(value);
        out.push(rest);
    }
    let path = PathBuf::from(out);
    Ok(fs::canonicalize(&path).unwrap_or_else(|_| clean(&path)))
}

fn variable(name: &str, environment: &Environment) -> Option<OsString> {
    let user = environment.user.as_ref();
    match name {
        "UID" => Some(environment.uid.to_string().into()),
        "HOME" => user.map(|user| user.home.clone().into()),
        "XDG_CONFIG_HOME" => user?.xdg_config_home.clone().map(Into::into),
        "XDG_DATA_HOME" => user?.storage.xdg_data_home.clone().map(Into::into),
        "XDG_RUNTIME_DIR" => user?.storage.xdg_runtime_dir.clone().map(Into::into),
        _ => None,
    }
}

fn data_home(environment: &Environment) -> Option<PathBuf> {
    let user = environment.user.as_ref()?;
    Some(user.storage.xdg_data_home.clone().unwrap_or_else(|| user.home.join(".local/share")))
}

/// Most drop-ins: 1,024, as for registries.d.
const FILES: usize = 1 << 10;
