//! [`VouchdToml`]: vouchd's own configuration; vouchd.toml(5).

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{CONFIGURATION_BYTES, Environment, Error, FILES, RegularFile, check_owner, is_absent};
use crate::diagnostic::Span;

/// The settings of all files together; what a later file sets counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VouchdToml {
    /// Where the daemon writes what it has counted.
    pub metrics: MetricsSettings,
    /// By way of which proxies registries are reached.
    pub proxy: ProxySettings,
    /// Which trusted root this host has.
    pub trusted_root: TrustedRootSettings,
}

/// Where the daemon writes what it has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSettings {
    /// A file for Prometheus; none if it is absent.
    pub path: Option<PathBuf>,
}

/// Which trusted root this host has; what is absent is that of Sigstore's public instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedRootSettings {
    /// A `trusted_root.json` to use in place of all others.
    pub path: Option<PathBuf>,
    /// The URL of the TUF repository that `vouchd trust update` asks.
    pub tuf_mirror: Option<String>,
    /// A TUF `root.json` with which the chain of that repository begins.
    pub tuf_root: Option<PathBuf>,
}

/// Proxies as somebody wrote them. They may hold passwords: no output shows them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// For `http` URLs.
    pub http: Option<String>,
    /// For `https` URLs.
    pub https: Option<String>,
    /// The hosts that are reached without one, parted by commas.
    pub no_proxy: Option<String>,
}

impl std::fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProxySettings")
    }
}

impl VouchdToml {
    /// Reads the vendor's file, the administrator's, and then the administrator's drop-ins by name; all may be absent.
    ///
    /// Each must be root's, as `/etc/vouchd/policy.json` must (T-23). One that cannot be used makes all unusable.
    pub fn load(environment: &Environment) -> Result<Self, Error> {
        let mut all = Self::default();
        let files = ["/usr/lib/vouchd/vouchd.toml", "/etc/vouchd/vouchd.toml"];
        let mut paths: Vec<PathBuf> = files.iter().map(|path| environment.system_path(path)).collect();
        paths.extend(drop_ins(&environment.system_path("/etc/vouchd/vouchd.toml.d"))?);
        for path in paths {
            let unusable = |detail: String| Error::VouchdToml { path: path.clone(), at: None, detail };
            if is_absent(&path).map_err(unusable)? {
                continue;
            }
            let file = RegularFile::open(&path).map_err(|error| unusable(error.to_string()))?;
            check_owner(&environment.root, &path, &file).map_err(unusable)?;
            let bytes = file.read(CONFIGURATION_BYTES).map_err(|error| unusable(error.to_string()))?;
            all.add(Written::parse(&path, &bytes)?);
        }
        Ok(all)
    }

    fn add(&mut self, written: Written) {
        let WrittenMetrics { path } = written.metrics.unwrap_or_default();
        self.metrics.path = path.or(self.metrics.path.take());
        let WrittenTrustedRoot { path, tuf_mirror, tuf_root } = written.trusted_root.unwrap_or_default();
        let trusted_root = &mut self.trusted_root;
        trusted_root.path = path.or(trusted_root.path.take());
        trusted_root.tuf_mirror = tuf_mirror.or(trusted_root.tuf_mirror.take());
        trusted_root.tuf_root = tuf_root.or(trusted_root.tuf_root.take());
        let WrittenProxy { http, https, no_proxy } = written.proxy.unwrap_or_default();
        let proxy = &mut self.proxy;
        proxy.http = http.or(proxy.http.take());
        proxy.https = https.or(proxy.https.take());
        proxy.no_proxy = no_proxy.map(|hosts| hosts.join(",")).or(proxy.no_proxy.take());
    }
}

/// The `*.toml` files of a directory, by name.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |detail: String| Error::VouchdToml { path: directory.to_owned(), at: None, detail };
    // A link that leads nowhere is something (T-23).
    if is_absent(directory).map_err(failed)? {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| failed(error.to_string()))? {
        let name = entry.map_err(|error| failed(error.to_string()))?.file_name();
        if name.as_bytes().ends_with(b".toml") {
            paths.push(directory.join(name));
        }
        if paths.len() > FILES {
            return Err(failed(format!("there are more than {FILES} files")));
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// A file as it is written. A key that is not known is an error: it would be one that somebody relies on.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    metrics: Option<WrittenMetrics>,
    proxy: Option<WrittenProxy>,
    trusted_root: Option<WrittenTrustedRoot>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenMetrics {
    path: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenTrustedRoot {
    path: Option<PathBuf>,
    tuf_mirror: Option<String>,
    tuf_root: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenProxy {
    http: Option<String>,
    https: Option<String>,
    no_proxy: Option<Vec<String>>,
}

impl Written {
    /// The parser's error names keys and types; a value, which may be a secret, is taken out of it.
    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let invalid = |at, detail: String| Error::VouchdToml { path: path.to_owned(), at, detail };
        let text = std::str::from_utf8(bytes).map_err(|error| invalid(None, error.to_string()))?;
        let written: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map(|span| Span { start: span.start, end: span.end }.position(bytes));
            let detail = match error.message().rsplit_once(", expected ") {
                Some((found, expected)) if found.starts_with("invalid ") => {
                    format!("the value is not {expected}")
                }
                Some(_) | None => error.message().to_owned(),
            };
            invalid(at, detail)
        })?;
        let metrics = written.metrics.as_ref().and_then(|metrics| metrics.path.as_deref());
        if metrics.is_some_and(|path| !path.is_absolute()) {
            return Err(invalid(None, "the path of [metrics] must be absolute".to_owned()));
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<VouchdToml, String> {
        let mut all = VouchdToml::default();
        all.add(Written::parse(Path::new("/f"), text.as_bytes()).map_err(|error| error.to_string())?);
        Ok(all)
    }

    #[test]
    fn what_is_set_later_counts() {
        let mut all = parse("[proxy]\nhttps = \"a\"\nno-proxy = [\"x\", \"y\"]").unwrap();
        all.add(Written::parse(Path::new("/f"), b"[proxy]\nhttps = \"b\"\nhttp = \"c\"").unwrap());
        let set = |text: &str| Some(text.to_owned());
        assert_eq!(all.proxy, ProxySettings { http: set("c"), https: set("b"), no_proxy: set("x,y") });
        assert_eq!(parse("").unwrap(), VouchdToml::default());
        assert!(!format!("{all:?}").contains("\"b\""));
    }

    // Rule T-23.
    #[test]
    fn only_what_is_truly_absent_is_passed_over() {
        let tmp = tempfile::tempdir().unwrap();
        let environment = Environment { root: tmp.path().to_owned(), uid: 0, user: None };
        assert_eq!(VouchdToml::load(&environment), Ok(VouchdToml::default()));
        fs::create_dir_all(tmp.path().join("etc/vouchd")).unwrap();
        std::os::unix::fs::symlink("nowhere", tmp.path().join("etc/vouchd/vouchd.toml.d")).unwrap();
        assert!(VouchdToml::load(&environment).is_err());
    }

    #[test]
    fn what_is_not_known_is_an_error_with_its_place() {
        for (text, place) in [
            ("proxies = 1", "/f:1:1\""),
            ("[proxy]\nhttps = \"a\"\nsocks = \"b\"", "/f:3:1\""),
            ("[proxy]\nhttps = 5", "/f:2:9\""),
            ("[proxy]\nhttps = \"a\"\nhttps = \"b\"", "/f:3:1\""),
            ("[proxy", "/f:1:7\""),
            ("[metrics]\npath = \"a.prom\"", "/f\""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(place), "{text}: {error}");
        }
        // A value may be a secret.
        let error = parse("[proxy]\nno-proxy = \"hunter2\"").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
