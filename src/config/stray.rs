//! [`Stray`]: what stands in registries.d and registries.conf and is not read, because it is misspelt.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_saphyr::granit_parser::{Event, Parser};
use toml::de::{DeTable, DeValue};

use super::{CONFIGURATION_BYTES, Directories, FILES, RegistriesConf, RegistriesD, RegularFile};
use crate::diagnostic::{Position, Positions};
use crate::json::folds;

/// Something that no tool reads, in silence (rules D-3, D-4 and M-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The file.
    pub path: PathBuf,
    /// Where in it; none if it is the file as a whole.
    pub at: Option<Position>,
    /// What it is.
    pub what: What,
}

/// What is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A file, because of its name.
    File,
    /// A key that is none.
    Key {
        /// The key.
        name: String,
        /// Those that there are in its place.
        known: &'static [&'static str],
    },
}

/// Everything that is not read in the files that are, and beside them. A file that has vanished has nothing.
pub fn strays(
    directories: &Directories,
    registries_d: &RegistriesD,
    registries_conf: &RegistriesConf,
) -> Vec<Stray> {
    let read = |path: &PathBuf| {
        let bytes = RegularFile::open(path).ok()?.read(CONFIGURATION_BYTES).ok()?;
        Some((path.clone(), String::from_utf8(bytes).ok()?))
    };
    let mut strays: Vec<Stray> = directories.paths().iter().flat_map(|path| misnamed(path)).collect();
    for (path, text) in registries_d.files().iter().filter_map(read) {
        strays.extend(keys(path, &text, yaml(&text)));
    }
    for (path, text) in registries_conf.files().iter().filter_map(read) {
        strays.extend(keys(path, &text, toml(&text)));
    }
    strays
}

/// Files that are meant for registries.d, and end in `.yml`.
fn misnamed(directory: &Path) -> Vec<Stray> {
    let entries = fs::read_dir(directory).into_iter().flatten().take(FILES).filter_map(Result::ok);
    let yml = entries.filter(|entry| entry.file_name().as_bytes().ends_with(b".yml"));
    let mut strays: Vec<Stray> =
        yml.map(|entry| Stray { path: entry.path(), at: None, what: What::File }).collect();
    strays.sort_by(|one, other| one.path.cmp(&other.path));
    strays
}

/// A key that is none, and those that there are in its place.
struct Unknown {
    offset: usize,
    name: String,
    known: &'static [&'static str],
}

fn keys(path: PathBuf, text: &str, unknown: Vec<Unknown>) -> impl Iterator<Item = Stray> {
    let positions = Positions::of(text.as_bytes(), unknown.iter().map(|unknown| unknown.offset).collect());
    unknown.into_iter().map(move |Unknown { offset, name, known }| Stray {
        path: path.clone(),
        at: positions.at(offset),
        what: What::Key { name, known },
    })
}

/// What a mapping of registries.d is.
#[derive(Clone, Copy)]
enum Role {
    /// Nothing that is known.
    Other,
    /// The mapping of scopes.
    Scopes,
    /// Settings of a scope, or the default ones.
    Section,
    /// The document.
    Top,
}

/// A collection that has been entered.
struct Entered {
    role: Role,
    is_mapping: bool,
    /// In a mapping, what the value of the key that was read is; none if a key comes next.
    value: Option<Role>,
}

/// The keys of the first document that are none (rules D-4 and D-5).
fn yaml(text: &str) -> Vec<Unknown> {
    let mut unknown = Vec::new();
    let mut entered: Vec<Entered> = Vec::new();
    for next in Parser::new_from_str(text) {
        let Ok((event, span)) = next else { break };
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        let is_end = matches!(event, Event::MappingEnd | Event::SequenceEnd);
        let is_mapping = matches!(event, Event::MappingStart(..));
        let is_start = is_mapping || matches!(event, Event::SequenceStart(..));
        if is_end {
            entered.pop();
            continue;
        }
        let name = if let Event::Scalar(name, ..) = &event { Some(name.as_ref()) } else { None };
        if name.is_none() && !is_start && !matches!(event, Event::Alias(_)) {
            continue;
        }
        let role = match entered.last_mut() {
            None => Role::Top,
            Some(Entered { is_mapping: false, .. }) => Role::Other,
            Some(outer) => match outer.value.take() {
                Some(role) => role,
                None => {
                    let name = name.unwrap_or_default();
                    outer.value = Some(value_of(outer.role, name));
                    let known = match outer.role {
                        Role::Top => TOP,
                        Role::Section => SECTION,
                        Role::Other | Role::Scopes => &[],
                    };
                    // "<<" takes over the keys of another mapping.
                    if !known.is_empty() && !known.contains(&name) && name != "<<" {
                        let offset = span.start.byte_offset().unwrap_or_default();
                        unknown.push(Unknown { offset, name: name.to_owned(), known });
                    }
                    Role::Other
                }
            },
        };
        if is_start {
            entered.push(Entered { role, is_mapping, value: None });
        }
    }
    unknown
}

/// What the value of a key is.
fn value_of(outer: Role, key: &str) -> Role {
    match (outer, key) {
        (Role::Top, "default-docker") | (Role::Scopes, _) => Role::Section,
        (Role::Top, "docker") => Role::Scopes,
        (Role::Other | Role::Section | Role::Top, _) => Role::Other,
    }
}

/// The keys of a registries.conf that are none; the reference reads them in any case (rule M-3).
fn toml(text: &str) -> Vec<Unknown> {
    let mut unknown = Vec::new();
    if let Ok(root) = DeTable::parse(text) {
        let root = root.get_ref();
        compare(root, MAIN, &mut unknown);
        for registry in tables(root, "registry") {
            compare(registry, REGISTRY, &mut unknown);
            tables(registry, "mirror").into_iter().for_each(|mirror| compare(mirror, MIRROR, &mut unknown));
        }
    }
    unknown.sort_by_key(|unknown| unknown.offset);
    unknown
}

fn compare(table: &DeTable<'_>, known: &'static [&'static str], unknown: &mut Vec<Unknown>) {
    for (key, _) in table {
        let name = key.get_ref();
        if !known.iter().any(|known| folds(name, known)) {
            unknown.push(Unknown { offset: key.span().start, name: name.clone().into_owned(), known });
        }
    }
}

/// The tables of an array of tables.
fn tables<'t, 'a>(table: &'t DeTable<'a>, name: &str) -> Vec<&'t DeTable<'a>> {
    let arrays = table.iter().filter(|(key, _)| folds(key.get_ref(), name));
    let elements = arrays.filter_map(|(_, value)| value.get_ref().as_array()).flatten();
    elements.filter_map(|element| DeValue::as_table(element.get_ref())).collect()
}

/// containers-registries.d(5).
const TOP: &[&str] = &["default-docker", "docker"];

/// containers-registries.d(5); the last two are the old names.
const SECTION: &[&str] =
    &["lookaside", "lookaside-staging", "use-sigstore-attachments", "sigstore", "sigstore-staging"];

/// containers-registries.conf(5).
const MAIN: &[&str] = &[
    "additional-layer-store-auth-helper",
    "aliases",
    "credential-helpers",
    "registries",
    "registry",
    "short-name-mode",
    "unqualified-search-registries",
];

/// containers-registries.conf(5), `[[registry]]`.
const REGISTRY: &[&str] = &[
    "prefix",
    "location",
    "insecure",
    "blocked",
    "mirror",
    "mirror-by-digest-only",
    "namespace-proxy",
    "pull-from-mirror",
];

/// containers-registries.conf(5), `[[registry.mirror]]`.
const MIRROR: &[&str] = &["location", "insecure", "namespace-proxy", "pull-from-mirror"];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(unknown: Vec<Unknown>) -> Vec<(usize, String)> {
        unknown.into_iter().map(|unknown| (unknown.offset, unknown.name)).collect()
    }

    // Rules D-4 and D-5.
    #[test]
    fn keys_of_registries_d_are_known_by_their_place() {
        for (text, wanted) in [
            ("", vec![]),
            ("docker:\n  a.example:\n    lookaside: file:///s\n    use-sigstore-attachments: true\n", vec![]),
            (
                "default-docker:\n  lookaside: x\n  lookaside-staging: y\n  sigstore: z\n  sigstore-staging: z\n",
                vec![],
            ),
            ("dokcer:\n  a.example: {lookaside: x}\n", vec![(0, "dokcer")]),
            (
                "docker:\n  a.example: {use-sigstore-attachment: true}\n",
                vec![(22, "use-sigstore-attachment")],
            ),
            ("default-docker: {Lookaside: x, a: {b: c}, lookaside: y}\n", vec![(17, "Lookaside"), (31, "a")]),
            ("docker:\n  lookaside: {lookaside: x}\n  é: {sigstor: y}\n", vec![(43, "sigstor")]),
            ("docker: [a, {b: c}]\nx: &a {y: z}\ndefault-docker: *a\n", vec![(20, "x")]),
            ("docker: {a: &s {lookaside: x}, b: *s, c: {bad: y}}\n", vec![(42, "bad")]),
            ("docker: {a: &s {lookaside: x}, b: {<<: *s}}\n", vec![]),
            ("docker: {}\n---\nother: x\n", vec![]),
            ("docker: {", vec![]),
        ] {
            let wanted: Vec<_> = wanted.into_iter().map(|(at, name)| (at, name.to_owned())).collect();
            assert_eq!(names(yaml(text)), wanted, "{text}");
        }
    }

    // Rule M-3.
    #[test]
    fn keys_of_registries_conf_are_known_in_any_case() {
        for (text, wanted) in [
            ("", vec![]),
            (
                "unqualified-search-registries = []\nShort-Name-Mode = \"disabled\"\n[aliases]\nx = \"a.b/x\"\n",
                vec![],
            ),
            (
                "[[registry]]\nprefix = \"a\"\nlocation = \"b\"\nblocked = true\n[[registry.mirror]]\nlocation = \"c\"\ninsecure = true\n",
                vec![],
            ),
            ("[[registry]]\nlocation = \"b\"\nblokced = true\n", vec![(28, "blokced")]),
            (
                "[[registry]]\nlocation = \"b\"\n[[registry.mirror]]\nlocation = \"c\"\nblocked = true\n",
                vec![(63, "blocked")],
            ),
            ("[[registries]]\nlocation = \"b\"\n[[regsitry]]\n", vec![(32, "regsitry")]),
            ("= 1", vec![]),
        ] {
            let wanted: Vec<_> = wanted.into_iter().map(|(at, name)| (at, name.to_owned())).collect();
            assert_eq!(names(toml(text)), wanted, "{text}");
        }
    }
}
