//! [`RegistriesD`]: where signatures are looked for; containers-registries.d(5).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::Spanned;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Tag};

use super::file::add_drop_ins;
use super::{CONFIGURATION_BYTES, Environment, Error, LookasideUrl, RegularFile};
use crate::diagnostic::escape;
use crate::reference::Named;

/// The directories to read, and the lookaside store of a host without any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// Highest priority first.
    paths: Vec<PathBuf>,
    /// Whether it is an error if one of them is absent.
    required: bool,
    builtin: LookasideUrl,
}

impl Directories {
    /// This directory and no other.
    pub fn explicit(path: PathBuf, environment: &Environment) -> Self {
        Self { paths: vec![path], required: false, builtin: builtin_lookaside(environment) }
    }

    /// The user's, the administrator's and the vendor's (rule D-1).
    pub fn search(environment: &Environment) -> Self {
        let uid = environment.uid;
        let names = match uid {
            0 => vec!["registries.rootful.d".to_owned()],
            _ => vec![format!("registries.rootless.d/{uid}"), "registries.rootless.d".to_owned()],
        };
        let system = ["/etc/containers", "/usr/share/containers"].into_iter().flat_map(|base| {
            let base = environment.system_path(base);
            names.iter().map(String::as_str).chain(["registries.d"]).map(move |name| base.join(name))
        });
        Self {
            paths: environment.user_path("registries.d").into_iter().chain(system).collect(),
            required: false,
            builtin: builtin_lookaside(environment),
        }
    }

    /// The same directories, but one that is absent is an error: somebody has named it.
    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The directories themselves, the most important first.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The files to read by base name: of several with one name the first directory's counts.
    fn files(&self) -> Result<BTreeMap<OsString, PathBuf>, Error> {
        let mut files = BTreeMap::new();
        for directory in &self.paths {
            match add_drop_ins(directory, ".yaml", &mut files) {
                Err(error) if error.kind() == ErrorKind::NotFound && !self.required => {}
                Err(error) => {
                    return Err(Error::RegistriesD { path: directory.clone(), detail: error.to_string() });
                }
                Ok(()) => {}
            }
        }
        Ok(files)
    }
}

/// Rule D-12.
fn builtin_lookaside(environment: &Environment) -> LookasideUrl {
    let path = match &environment.user {
        Some(user) if environment.uid != 0 => user.home.join(".local/share/containers/sigstore"),
        Some(_) | None => PathBuf::from("/var/lib/containers/sigstore"),
    };
    LookasideUrl::from_path(path)
}

/// The settings of all files, by scope.
#[derive(Clone, Debug)]
pub struct RegistriesD {
    default: Option<Section>,
    scopes: BTreeMap<String, Section>,
    builtin: LookasideUrl,
    files: Vec<PathBuf>,
}

/// The settings of one scope; an absent one is looked for in the next wider scope.
#[derive(Clone, Debug)]
struct Section {
    file: PathBuf,
    attachments: Option<bool>,
    read: Option<String>,
    write: Option<String>,
}

/// Where a setting is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The scope under `docker`; `None` for `default-docker`.
    pub scope: Option<String>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "docker scope \"{}\"", escape(scope))?,
            None => f.write_str("\"default-docker\"")?,
        }
        write!(f, " in \"{}\"", escape(&self.file.to_string_lossy()))
    }
}

impl RegistriesD {
    /// Reads every file; one that cannot be used makes all unusable (rule D-11).
    pub fn load(directories: &Directories) -> Result<Self, Error> {
        let mut all = Self::empty(directories);
        for path in directories.files()?.into_values() {
            // Rule D-1: a file may vanish between the listing and the reading.
            match RegularFile::find(&path) {
                Ok(Some(file)) => {
                    all.add(&path, &file)?;
                    all.files.push(path);
                }
                Ok(None) => {}
                Err(error) => return Err(Error::RegistriesD { path, detail: error.to_string() }),
            }
        }
        Ok(all)
    }

    /// Every reason for which [`RegistriesD::load`] fails: of each file the first, else of all together.
    pub fn faults(directories: &Directories) -> Vec<Error> {
        let files = match directories.files() {
            Ok(files) => files.into_values(),
            Err(error) => return vec![error],
        };
        let fault = |path: PathBuf| match RegularFile::find(&path) {
            Ok(file) => Self::empty(directories).add(&path, &file?).err(),
            Err(error) => Some(Error::RegistriesD { path, detail: error.to_string() }),
        };
        let faults: Vec<Error> = files.filter_map(fault).collect();
        if faults.is_empty() { Self::load(directories).err().into_iter().collect() } else { faults }
    }

    fn empty(directories: &Directories) -> Self {
        let builtin = directories.builtin.clone();
        Self { default: None, scopes: BTreeMap::new(), builtin, files: Vec::new() }
    }

    /// The files that were read.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Rule D-6: a setting stands in one file only.
    fn add(&mut self, path: &Path, file: &RegularFile) -> Result<(), Error> {
        let invalid = |detail: String| Error::RegistriesD { path: path.to_owned(), detail };
        let bytes = file.read(CONFIGURATION_BYTES).map_err(|error| invalid(error.to_string()))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| invalid(error.to_string()))?;
        let document = Document::parse(text).map_err(invalid)?;
        if let Some(section) = document.default_docker {
            let section = Section::new(path, text, section)?;
            if let Some(first) = self.default.replace(section) {
                return Err(Error::Conflict { scope: None, first: first.file, second: path.to_owned() });
            }
        }
        for (scope, section) in document.docker.unwrap_or_default() {
            let section = Section::new(path, text, section.unwrap_or_default())?;
            match self.scopes.entry(scope.unwrap_or_default()) {
                Entry::Vacant(entry) => {
                    entry.insert(section);
                }
                Entry::Occupied(entry) if entry.get().file == path => {}
                Entry::Occupied(entry) => {
                    let (scope, first) = entry.remove_entry();
                    return Err(Error::Conflict {
                        scope: Some(scope),
                        first: first.file,
                        second: path.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether sigstore attachments are looked for (rule D-9).
    pub fn use_attachments(&self, image: &Named) -> bool {
        self.find(image, |section| section.attachments).is_some_and(|(value, _)| value)
    }

    /// Where [`RegistriesD::use_attachments`] is set; `None` if nowhere.
    pub fn attachments_origin(&self, image: &Named) -> Option<Origin> {
        self.find(image, |section| section.attachments).map(|(_, origin)| origin)
    }

    /// Whether sigstore attachments are looked for of some images within a docker scope of the policy.
    pub fn use_attachments_within(&self, scope: &str) -> bool {
        self.within(scope).any(|section| section.attachments == Some(true))
    }

    /// Whether there is a lookaside store to read from for some images within a docker scope of the policy.
    pub fn has_lookaside_within(&self, scope: &str) -> bool {
        self.within(scope).any(|section| section.read.is_some())
    }

    /// The sections of a scope and of those below it; the empty scope has all.
    fn within<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = &'a Section> {
        let is_within = move |name: &str| match scope.strip_prefix('*') {
            Some(domain) => {
                let host = name.split(['/', ':']).next().unwrap_or_default();
                host.ends_with(domain)
            }
            None => name
                .strip_prefix(scope)
                .is_some_and(|rest| scope.is_empty() || rest.is_empty() || rest.starts_with(['/', ':', '@'])),
        };
        self.scopes.iter().filter(move |(name, _)| is_within(name)).map(|(_, section)| section)
    }

    /// Whether somebody has put signatures into the store that is read where none is set (rule D-12).
    pub fn has_builtin_signatures(&self) -> bool {
        let entries = self.builtin.file_path().and_then(|path| std::fs::read_dir(path).ok());
        entries.is_some_and(|mut entries| entries.next().is_some())
    }

    /// The lookaside store to read from, with the repository's path (rules D-8, K-1).
    pub fn lookaside_read(&self, image: &Named) -> Result<LookasideUrl, Error> {
        self.lookaside(image, |section| section.read.as_deref())
    }

    /// As [`RegistriesD::lookaside_read`], and of a scheme that can be read (rule K-7).
    pub fn lookaside_usable(&self, image: &Named) -> Result<LookasideUrl, Error> {
        let url = self.lookaside_read(image)?;
        match self.lookaside_read_origin(image) {
            Some(origin) if !url.is_http() && url.file_path().is_none() => {
                Err(Error::LookasideUrl { origin, detail: "the scheme is none of file, http and https" })
            }
            Some(_) | None => Ok(url),
        }
    }

    /// Where [`RegistriesD::lookaside_read`] is set; `None` if it is the built-in one.
    pub fn lookaside_read_origin(&self, image: &Named) -> Option<Origin> {
        self.find(image, |section| section.read.as_deref()).map(|(_, origin)| origin)
    }

    /// The lookaside store to write to, with the repository's path (rules D-8, K-1).
    pub fn lookaside_write(&self, image: &Named) -> Result<LookasideUrl, Error> {
        self.lookaside(image, |section| section.write.as_deref())
    }

    fn lookaside(&self, image: &Named, setting: fn(&Section) -> Option<&str>) -> Result<LookasideUrl, Error> {
        let base = match self.find(image, setting) {
            Some((url, origin)) => {
                LookasideUrl::parse(url).map_err(|detail| Error::LookasideUrl { origin, detail })?
            }
            None => self.builtin.clone(),
        };
        Ok(base.appended(&format!("/{}", image.path())))
    }

    /// The setting in the most specific section that has it (rules D-7, D-8).
    fn find<'a, T>(
        &'a self,
        image: &Named,
        setting: impl Fn(&'a Section) -> Option<T>,
    ) -> Option<(T, Origin)> {
        let identity = image.clone().with_default_tag().to_string();
        let scoped = std::iter::once(identity).chain(image.namespaces()).find_map(|scope| {
            let section = self.scopes.get(&scope)?;
            Some((setting(section)?, Origin { file: section.file.clone(), scope: Some(scope) }))
        });
        scoped.or_else(|| {
            let section = self.default.as_ref()?;
            Some((setting(section)?, Origin { file: section.file.clone(), scope: None }))
        })
    }
}

impl Section {
    fn new(file: &Path, text: &str, written: WrittenSection) -> Result<Self, Error> {
        let WrittenSection {
            lookaside,
            lookaside_staging,
            sigstore,
            sigstore_staging,
            use_sigstore_attachments,
        } = written;
        let set = |url: Option<String>| url.filter(|url| !url.is_empty());
        let read = set(lookaside).or_else(|| set(sigstore));
        let write = set(lookaside_staging).or_else(|| set(sigstore_staging)).or_else(|| read.clone());
        let attachments = match use_sigstore_attachments {
            None => None,
            Some(written) => Some(parse_boolean(&written, text).ok_or_else(|| Error::RegistriesD {
                path: file.to_owned(),
                detail: format!(
                    "\"use-sigstore-attachments\" must be true or false, without quotes, at line {}",
                    written.defined.line()
                ),
            })?),
        };
        Ok(Self { file: file.to_owned(), attachments, read, write })
    }
}

/// A file as it is written; keys that are not known mean nothing (rules D-4, D-5).
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Document {
    default_docker: Option<WrittenSection>,
    docker: Option<BTreeMap<Option<String>, Option<WrittenSection>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct WrittenSection {
    lookaside: Option<String>,
    lookaside_staging: Option<String>,
    sigstore: Option<String>,
    sigstore_staging: Option<String>,
    use_sigstore_attachments: Option<Spanned<String>>,
}

impl Document {
    /// Reads the first YAML document; the others do not matter (rule D-4).
    fn parse(text: &str) -> Result<Self, String> {
        check_syntax(text)?;
        let mut first = None;
        let options = serde_saphyr::options! { with_snippet: false };
        let whole = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
            first = Some(Option::deserialize(deserializer)?);
            Ok(())
        });
        match (first, whole) {
            (Some(document), _) => Ok(document.unwrap_or_default()),
            (None, Err(error)) => Err(error.render_with_formatter(&serde_saphyr::UserMessageFormatter)),
            (None, Ok(())) => Ok(Self::default()),
        }
    }
}

/// Refuses what YAML allows and the reference does not: unprintable characters, tags, the escape `\/`.
///
/// Stricter than the reference, which knows some tags; of those only `!!binary` is let through.
fn check_syntax(text: &str) -> Result<(), String> {
    if let Some(c) = text.chars().find(|c| !is_printable(*c)) {
        return Err(format!("the character U+{:04X} is not allowed", u32::from(c)));
    }
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| error.to_string())?;
        let binary = |tag: &Tag| tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() == Some("binary");
        if event.tag().is_some_and(|tag| !binary(tag)) {
            return Err(format!("tags are not allowed, at line {}", span.start.line()));
        }
        if matches!(event, Event::Scalar(_, ScalarStyle::DoubleQuoted, _, _))
            && span.slice(text).is_some_and(|raw| raw.replace("\\\\", "").contains("\\/"))
        {
            return Err(format!("\"\\/\" is not a known escape, at line {}", span.start.line()));
        }
        if matches!(event, Event::DocumentEnd) {
            break;
        }
    }
    Ok(())
}

/// YAML 1.2.2, production c-printable.
fn is_printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

/// A plain boolean in the words of YAML 1.1 (rule D-4); what is in quotes is not as long as its value.
fn parse_boolean(written: &Spanned<String>, text: &str) -> Option<bool> {
    let span = written.defined.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    if text.get(start..end) != Some(&written.value) {
        return None;
    }
    match written.value.as_str() {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}
