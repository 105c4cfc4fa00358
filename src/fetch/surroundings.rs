//! [`Gatherer`]: what a policy names, looked at on this host.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::{
    self, Environment, PolicyPaths, RegistriesConf, RegistriesD, RegularFile, Stray, What,
    unreadable_for_others, writable_by_all,
};
use crate::diagnostic::{Code, closest};
use crate::digest::Digest;
use crate::fetch::host_root::{HostRoots, written};
use crate::fetch::{self, Configuration, KEY_FILE_BYTES};
use crate::lint::{Fault, Host, NamedFile, Needs, Store, Surroundings};
use crate::reference::Named;
use crate::verify::trust::KeyMaterial;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A host, of which all configuration counts, and which others use.
    Host,
    /// A policy, and what it needs.
    Policy,
    /// A policy, and a registries.d or registries.conf that somebody named with it.
    PolicyAndStores,
}

/// Reads what policies name.
#[derive(Debug)]
pub struct Gatherer {
    environment: Environment,
    configuration: Configuration,
    with_files: bool,
    subject: Subject,
}

impl Gatherer {
    /// Of this host, with this configuration; `with_files` says whether files that policies name are opened.
    pub fn new(
        environment: Environment,
        configuration: Configuration,
        with_files: bool,
        subject: Subject,
    ) -> Self {
        Self { environment, configuration, with_files, subject }
    }

    /// Looks. It blocks.
    pub fn gather(&self, needs: &Needs) -> Surroundings {
        let mut surroundings = Surroundings::default();
        if self.with_files {
            let read = |path: &String| (path.clone(), self.file(Path::new(path)));
            surroundings.files = needs.files.iter().map(read).collect();
            let real = |path: &String| {
                let real = real(Path::new(path))?;
                (real != Path::new(path)).then(|| (path.clone(), real))
            };
            surroundings.links = needs.paths.iter().filter_map(real).collect();
        }
        if self.subject != Subject::Policy || !needs.stores.is_empty() {
            self.locate(&needs.stores, &mut surroundings);
        }
        if self.subject == Subject::Host {
            let toml = config::VouchdToml::load(&self.environment);
            surroundings.faults.extend(toml.err().as_ref().and_then(fault));
            surroundings.faults.extend(certificates(&self.environment));
        }
        if needs.host_root {
            match HostRoots::new(self.environment.clone()).load() {
                Ok(root) => surroundings.host_root = Some(root),
                Err(fetch::Error::Config(error)) => surroundings.faults.extend(fault(&error)),
                Err(_) => {}
            }
        }
        surroundings
    }

    /// A relative path begins in the working directory (rule P-14).
    fn file(&self, path: &Path) -> NamedFile {
        let read = |file: RegularFile| {
            let material = KeyMaterial::new(path.to_string_lossy().into_owned(), file.read(KEY_FILE_BYTES)?);
            Ok(Arc::new(match written(&file) {
                Some(time) => material.written_at(time),
                None => material,
            }))
        };
        let material = RegularFile::open(path).and_then(read).map_err(|error: io::Error| error.to_string());
        let is_read = material.is_ok();
        NamedFile {
            material,
            writable: if is_read { writable_by_all(path) } else { None },
            // Of a policy that is only tried out, nobody else needs the files.
            private: if is_read && self.subject == Subject::Host {
                unreadable_for_others(path)
            } else {
                None
            },
        }
    }

    fn locate(&self, scopes: &BTreeSet<String>, surroundings: &mut Surroundings) {
        let registries_d = RegistriesD::load(&self.configuration.registries_d);
        let registries_conf = RegistriesConf::load(&self.configuration.registries_conf);
        if registries_d.is_err() {
            let errors = RegistriesD::faults(&self.configuration.registries_d);
            surroundings.faults.extend(errors.iter().filter_map(fault));
        }
        if registries_conf.is_err() {
            let errors = RegistriesConf::faults(&self.configuration.registries_conf);
            surroundings.faults.extend(errors.iter().filter_map(fault));
        }
        let (Ok(registries_d), Ok(registries_conf)) = (registries_d, registries_conf) else { return };
        if self.subject != Subject::Policy {
            let strays = config::strays(&self.configuration.registries_d, &registries_d, &registries_conf);
            surroundings.faults.extend(strays.into_iter().map(stray));
        }
        let has_builtin = registries_d.has_builtin_signatures();
        for scope in scopes {
            let mut stores = HashMap::new();
            for probe in probes(scope, &registries_conf) {
                // What is blocked is asked nowhere, and what cannot be used is told when it is.
                let Ok(endpoints) = registries_conf.endpoints(&probe.image) else { continue };
                for endpoint in endpoints.iter() {
                    let there = &endpoint.image;
                    let name = probe.stripped(there);
                    let lookaside = match registries_d.lookaside_usable(there) {
                        Ok(_) => registries_d.lookaside_read_origin(there).is_some(),
                        Err(error) => {
                            let fault = fault(&error).filter(|fault| !surroundings.faults.contains(fault));
                            surroundings.faults.extend(fault);
                            true
                        }
                    };
                    let store = Store {
                        is_mirror: endpoint.is_mirror,
                        attachments: registries_d.use_attachments(there)
                            || registries_d.use_attachments_within(&name),
                        attachments_origin: registries_d
                            .attachments_origin(there)
                            .map(|origin| origin.to_string()),
                        lookaside: lookaside || has_builtin || registries_d.has_lookaside_within(&name),
                        name: name.clone(),
                    };
                    stores.entry(name).or_insert(store);
                }
            }
            let mut stores: Vec<Store> = stores.into_values().collect();
            stores.sort_by(|one, other| (one.is_mirror, &one.name).cmp(&(other.is_mirror, &other.name)));
            surroundings.stores.insert(scope.clone(), stores);
        }
    }
}

/// Where a path leads, of which the last part need not be there (rule S-13).
fn real(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok().or_else(|| {
        let (parent, name) = (path.parent()?, path.file_name()?);
        Some(std::fs::canonicalize(parent).ok()?.join(name))
    })
}

/// What is to be known of the policy that was found at `path`.
pub fn host(environment: &Environment, path: &Path, bytes: &[u8]) -> Host {
    let PolicyPaths { own, user, system, vendor } = environment.policies();
    let mut host = Host { path: path.to_owned(), writable: writable_by_all(path), ..Host::default() };
    if path == own {
        let mut others = user.into_iter().chain([system, vendor]);
        host.others = others.find_map(|path| Some((path.clone(), read(&path)?)));
        return host;
    }
    // podman lets the user's file count for root, too, where we do not.
    let user = user.or_else(|| {
        let home = (environment.uid == 0).then(|| nix::unistd::User::from_uid(0.into()).ok().flatten())??;
        Some(home.dir.join(".config/containers/policy.json"))
    });
    let beside = [&system, &vendor].into_iter().find(|path| path.exists()).cloned();
    host.overridden = user.filter(|user| user.exists()).zip(beside);
    if path == system
        && let (Some(ours), Some(theirs)) = (modified(&system), modified(&vendor))
        && ours < theirs
        && read(&vendor).is_some_and(|theirs| theirs != bytes)
    {
        host.newer = Some(vendor);
    }
    host
}

/// The policies of a host that are read by others than vouchd, if vouchd has its own.
pub fn others(environment: &Environment) -> Option<PathBuf> {
    let PolicyPaths { user, system, vendor, .. } = environment.policies();
    user.into_iter().chain([system, vendor]).find(|path| path.exists())
}

fn read(path: &Path) -> Option<Vec<u8>> {
    RegularFile::open(path).ok()?.read(config::POLICY_BYTES).ok()
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

fn fault(error: &config::Error) -> Option<Fault> {
    let (path, at) = error.place()?;
    let (message, help) = (error.to_string(), error.help().to_owned());
    Some(Fault { code: error.code(), path: path.to_owned(), at, message, help })
}

/// What is wrong in the directories with the certificates of registries, of which the first of a registry counts
/// (rules T-1 and T-2).
fn certificates(environment: &Environment) -> Vec<Fault> {
    let mut registries = BTreeSet::new();
    let mut faults = Vec::new();
    for base in environment.certs_d() {
        for registry in entries(&base) {
            if registry.is_dir() && registries.insert(registry.file_name().map(OsStr::to_owned)) {
                faults.extend(entries(&registry).into_iter().filter_map(certificate));
            }
        }
    }
    faults
}

fn certificate(path: PathBuf) -> Option<Fault> {
    let lacks = |half: &str| !path.with_extension(half).exists();
    let (code, message, help) = match path.extension()?.to_str()? {
        "cert" if lacks("key") => (
            Code::CertificatesInvalid,
            "the key of this client certificate is missing, so that the registry is not asked",
            "put the key beside it, named *.key; certificates of authorities are named *.crt",
        ),
        "key" if lacks("cert") => (
            Code::CertificatesInvalid,
            "the certificate of this key is missing, so that the registry is not asked",
            "put the client certificate beside it, named *.cert",
        ),
        "pem" => (
            Code::UnreadSetting,
            "this file is not read: certificates of authorities are named *.crt",
            "rename it, or remove it",
        ),
        _ => return None,
    };
    Some(Fault { code, path, at: None, message: message.to_owned(), help: help.to_owned() })
}

/// What is in a directory, by name.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().take(config::FILES);
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn stray(Stray { path, at, what }: Stray) -> Fault {
    let (message, help) = match what {
        What::File => (
            "this file is not read: files of registries.d end in \".yaml\"".to_owned(),
            "rename it".to_owned(),
        ),
        What::Key { name, known } => (
            format!("\"{name}\" means nothing here"),
            match closest(&name, known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("the keys here are {}", known.join(", ")),
            },
        ),
    };
    Fault { code: Code::UnreadSetting, path, at, message, help }
}

/// An image that stands for all of a scope.
struct Probe {
    image: Named,
    suffix: &'static str,
    host: &'static str,
}

impl Probe {
    /// The scope that the image stands for, by the name that it has at an endpoint.
    fn stripped(&self, there: &Named) -> String {
        let text = there.to_string();
        // The tag or digest of the probe is no part of the scope.
        let text = if self.suffix.is_empty() { text } else { there.name() };
        let text = text.strip_suffix(self.suffix).unwrap_or(&text);
        match text.strip_prefix(self.host) {
            Some("") => String::new(),
            Some(rest) if !self.host.is_empty() => format!("*{rest}"),
            Some(_) | None => text.to_owned(),
        }
    }
}

/// Images that are fetched from every place from which images of the scope may come.
fn probes(scope: &str, registries_conf: &RegistriesConf) -> Vec<Probe> {
    let is_below = |prefix: &&str| {
        prefix.strip_prefix(scope).is_some_and(|rest| rest.starts_with('/')) && !scope.is_empty()
    };
    let bases = std::iter::once(scope).chain(registries_conf.prefixes().filter(is_below));
    bases.flat_map(probes_of).collect()
}

fn probes_of(scope: &str) -> Vec<Probe> {
    if let Ok(image) = Named::parse(scope)
        && !image.is_name_only()
        && scope.contains('/')
    {
        return vec![Probe { image, suffix: "", host: "" }];
    }
    let (name, host) = match scope.strip_prefix('*') {
        _ if scope.is_empty() => (format!("{HOST}{SUFFIX}"), HOST),
        Some(domain) => (format!("{HOST}{domain}{SUFFIX}"), HOST),
        None => (format!("{scope}{SUFFIX}"), ""),
    };
    let tagged = Named::parse(&name).ok().map(Named::with_default_tag);
    // Some mirrors are for digests only.
    let digest = Digest::sha256(b"");
    let pinned = tagged.as_ref().and_then(|tagged| Named::parse(&format!("{}@{digest}", tagged.name())).ok());
    let probe = |image| Probe { image, suffix: SUFFIX, host };
    tagged.into_iter().chain(pinned).map(probe).collect()
}

/// What makes an image of a scope that may be a host, a namespace or a repository.
const SUFFIX: &str = "/vouchd-policy-lint";

/// What makes a host of a wildcard, or stands for every host.
const HOST: &str = "vouchd-policy-lint.invalid";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn environment(root: &Path, uid: u32) -> Environment {
        Environment { root: root.to_owned(), uid, user: None }
    }

    fn put(root: &Path, path: &str, text: &str, age: u64) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000 - age);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        path
    }

    const SYSTEM: &str = "etc/containers/policy.json";
    const VENDOR: &str = "usr/share/containers/policy.json";

    // Rule L-3.
    #[test]
    fn a_copy_is_old_if_the_vendors_is_newer_and_another() {
        for (ours, theirs, wanted) in [
            (("a", 9), Some(("b", 1)), true),
            (("a", 1), Some(("b", 9)), false),
            (("a", 9), Some(("a", 1)), false),
            (("a", 9), None, false),
        ] {
            let tmp = tempfile::tempdir().unwrap();
            let root = tmp.path();
            let path = put(root, SYSTEM, ours.0, ours.1);
            theirs.map(|(text, age)| put(root, VENDOR, text, age));
            let host = host(&environment(root, 1000), &path, ours.0.as_bytes());
            assert_eq!(host.newer.is_some(), wanted, "{ours:?} {theirs:?}");
            assert_eq!((host.others, host.overridden), (None, None));
        }
    }

    // Design decision 3.2.
    #[test]
    fn vouchds_own_policy_is_held_against_the_one_that_podman_reads() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path();
        let own = put(root, "etc/vouchd/policy.json", "own", 0);
        let environment = environment(root, 1000);
        assert_eq!(host(&environment, &own, b"own").others, None);
        let vendor = put(root, VENDOR, "vendor", 0);
        assert_eq!(host(&environment, &own, b"own").others, Some((vendor.clone(), b"vendor".to_vec())));
        assert_eq!(others(&environment), Some(vendor));
        let system = put(root, SYSTEM, "system", 0);
        assert_eq!(host(&environment, &own, b"own").others, Some((system.clone(), b"system".to_vec())));
        assert_eq!(others(&environment), Some(system));
    }

    // Rule L-3; T-23.
    #[test]
    fn what_counts_in_place_of_a_policy_or_can_be_changed_is_found() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path();
        let path = put(root, SYSTEM, "system", 0);
        let home = put(root, "home/.config/containers/policy.json", "user", 0);
        let user = Some(config::User::at_home(root.join("home")));
        let environment = Environment { user, ..environment(root, 1000) };
        let found = host(&environment, &path, b"system");
        let overridden = Some((home.clone(), path.clone()));
        assert_eq!((found.overridden, found.writable), (overridden.clone(), None));
        assert_eq!(host(&environment, &home, b"user").overridden, overridden);
        fs::remove_file(&home).unwrap();
        assert_eq!(host(&environment, &path, b"system").overridden, None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o646)).unwrap();
        assert_eq!(host(&environment, &path, b"system").writable, Some(path.canonicalize().unwrap()));
    }

    // Rules T-1 and T-2.
    #[test]
    fn certificates_of_registries_are_in_pairs() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path();
        let environment = environment(root, 0);
        for name in
            ["a/ca.crt", "a/client.cert", "a/client.key", "a/README", "b/x.cert", "b/ca.pem", "b/y.key"]
        {
            put(root, &format!("etc/containers/certs.d/{name}"), "", 0);
        }
        // The first directory of a registry counts alone.
        put(root, "usr/share/containers/certs.d/a/z.key", "", 0);
        put(root, "usr/share/containers/certs.d/c/z.key", "", 0);
        let found: Vec<(String, Code)> = certificates(&environment)
            .into_iter()
            .map(|fault| (fault.path.file_name().unwrap().to_str().unwrap().to_owned(), fault.code))
            .collect();
        let wanted = [
            ("ca.pem", Code::UnreadSetting),
            ("x.cert", Code::CertificatesInvalid),
            ("y.key", Code::CertificatesInvalid),
            ("z.key", Code::CertificatesInvalid),
        ];
        assert_eq!(found, wanted.map(|(name, code)| (name.to_owned(), code)));
    }

    // Rules D-6, D-11 and M-1.
    #[test]
    fn every_broken_file_is_told_of() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path();
        let environment = environment(root, 0);
        let configuration = Configuration {
            registries_d: config::Directories::search(&environment),
            registries_conf: config::RegistriesConfSource::Search(environment.clone()),
            proxies: fetch::ProxySource::VouchdToml(environment.clone()),
        };
        let gatherer = Gatherer::new(environment, configuration, true, Subject::Host);
        let faults = || -> Vec<String> {
            let found = gatherer.gather(&Needs::default()).faults;
            found.iter().map(|fault| fault.path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert!(faults().is_empty());
        put(root, "etc/containers/registries.d/a.yaml", "docker: {a: {}}", 0);
        put(root, "etc/containers/registries.d/b.yaml", "docker: {a: {}}", 0);
        assert_eq!(faults(), ["b.yaml"], "one scope in two files");
        put(root, "etc/containers/registries.d/a.yaml", "docker: [", 0);
        put(root, "etc/containers/registries.d/c.yaml", "docker: {c: {lookaside: [x]}}", 0);
        put(root, "etc/containers/registries.conf", "x = ", 0);
        put(root, "etc/containers/registries.conf.d/1.conf", "short-name-mode = 1", 0);
        put(root, "etc/containers/registries.conf.d/2.conf", "short-name-mode = \"disabled\"", 0);
        put(root, "etc/containers/registries.conf.d/3.conf", "registry = 1", 0);
        assert_eq!(faults(), ["a.yaml", "c.yaml", "registries.conf", "1.conf", "3.conf"]);
    }

    // Rules D-8 to D-10, M-4 and M-5: by the names of all places, digests and deeper entries included.
    #[test]
    fn scopes_are_looked_for_by_every_name_that_their_images_have() {
        let tmp = tempfile::tempdir().unwrap();
        let conf = put(
            tmp.path(),
            "r.conf",
            "[[registry]]\nprefix = \"h.example/a\"\nlocation = \"other.example/x\"\n\
             [[registry.mirror]]\nlocation = \"m.example\"\npull-from-mirror = \"digest-only\"\n\
             [[registry]]\nprefix = \"*.wild.example\"\n\
             [[registry.mirror]]\nlocation = \"w.example/copies\"\n",
            0,
        );
        put(
            tmp.path(),
            "d/a.yaml",
            "docker:\n  m.example: {use-sigstore-attachments: true}\n  other.example/x/deep: {lookaside: file:///s}\n  c.wild.example: {use-sigstore-attachments: true}\n",
            0,
        );
        let user = Some(config::User::at_home(tmp.path()));
        let environment = Environment { user, ..environment(tmp.path(), 1000) };
        let configuration = Configuration {
            registries_d: config::Directories::explicit(tmp.path().join("d"), &environment),
            registries_conf: config::RegistriesConfSource::Explicit(conf),
            proxies: fetch::ProxySource::VouchdToml(environment.clone()),
        };
        let gatherer = Gatherer::new(environment, configuration, true, Subject::Policy);
        for (scope, wanted) in [
            (
                "h.example",
                &[
                    ("h.example", false, false, false),
                    ("other.example/x", false, false, true),
                    ("m.example", true, true, false),
                ][..],
            ),
            ("h.example/a", &[("other.example/x", false, false, true), ("m.example", true, true, false)]),
            ("h.example/a:1", &[("other.example/x:1", false, false, false)]),
            ("h.example:5000", &[("h.example:5000", false, false, false)]),
            (
                "*.wild.example",
                &[("*.wild.example", false, true, false), ("w.example/copies", true, false, false)],
            ),
            ("m.example/b", &[("m.example/b", false, true, false)]),
            ("", &[("", false, true, true)]),
        ] {
            let stores = [scope.to_owned()].into();
            let found = gatherer.gather(&Needs { stores, ..Needs::default() });
            assert_eq!(found.faults, []);
            let found: Vec<_> = found.stores[scope]
                .iter()
                .map(|store| (store.name.as_str(), store.is_mirror, store.attachments, store.lookaside))
                .collect();
            assert_eq!(found, wanted, "{scope}");
        }
    }
}
