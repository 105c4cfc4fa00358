//! [`Source`]: which containers-auth.json(5) files count, and what they hold for a repository.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::config::RegularFile;
use crate::digest::Digest;
use crate::fetch::Error;
use crate::json;

/// Largest authentication file: 4 MiB, as all configuration (design decision 6).
pub const AUTH_FILE_BYTES: usize = 4 << 20;

/// Where credentials come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Nowhere.
    #[default]
    Anonymous,
    /// This file and no other; it must exist (rule U-1).
    File(PathBuf),
    /// The first of these files that knows the repository; absent files are passed over (rule U-2).
    Search(Vec<AuthFile>),
}

impl Source {
    /// The files that count when none is named (rule U-2).
    ///
    /// Those of the user and of the user's environment count only if `user_files`, which is to be false
    /// for uid 0 unless it was asked for (T-22).
    pub fn default_files(uid: u32, user_files: bool) -> Self {
        if user_files {
            Self::Search(search(uid, |name| std::env::var_os(name)))
        } else {
            Self::Search(search(uid, |_| None))
        }
    }

    /// The credentials for a repository, or none. Reads files: it blocks.
    pub(in crate::fetch) fn find(&self, repository: &str) -> Result<Option<Credentials>, Error> {
        match self {
            Self::Anonymous => Ok(None),
            Self::File(path) => {
                let file = AuthFile { path: path.clone(), legacy: false };
                match file.read()? {
                    Some(content) => content.find(&file, repository),
                    None => Err(file.error("it does not exist")),
                }
            }
            Self::Search(files) => {
                for file in files {
                    if let Some(content) = file.read_if_permitted()?
                        && let Some(found) = content.find(file, repository)?
                    {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// A file to look for credentials in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthFile {
    path: PathBuf,
    /// Whether the whole file is what `auths` is elsewhere, as in `~/.dockercfg`.
    legacy: bool,
}

impl AuthFile {
    /// As [`AuthFile::read`], but a file that nobody named, and that is not for this user, is passed over:
    /// the daemon has no business with those of root.
    fn read_if_permitted(&self) -> Result<Option<Content>, Error> {
        match RegularFile::find(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            found => self.parse(found),
        }
    }

    /// The content, or nothing if there is no such file.
    fn read(&self) -> Result<Option<Content>, Error> {
        self.parse(RegularFile::find(&self.path))
    }

    fn parse(&self, found: io::Result<Option<RegularFile>>) -> Result<Option<Content>, Error> {
        let unreadable = |e: io::Error| self.error(&e.to_string());
        let Some(file) = found.map_err(unreadable)? else { return Ok(None) };
        let bytes = file.read(AUTH_FILE_BYTES).map_err(unreadable)?;
        // The text of the error is left out, because it may quote a secret.
        let malformed = |e: serde_json::Error| {
            self.error(&format!("it is not such a file: line {} column {}", e.line(), e.column()))
        };
        let content = if self.legacy {
            Content { auths: serde_json::from_slice(&bytes).map_err(malformed)?, helpers: None }
        } else {
            serde_json::from_slice(&bytes).map_err(malformed)?
        };
        Ok(Some(content))
    }

    fn error(&self, detail: &str) -> Error {
        Error::AuthFile { path: self.path.display().to_string(), detail: detail.to_owned() }
    }
}

/// What a registry may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fetch) struct Credentials {
    /// The user, possibly empty.
    pub(in crate::fetch) user: String,
    /// The password, possibly empty.
    pub(in crate::fetch) password: Secret,
    /// A refresh token, used instead of the password where there is one (rule H-3).
    pub(in crate::fetch) identity_token: Option<Secret>,
}

impl Credentials {
    /// Tells apart what was obtained with different credentials (T-25).
    pub(in crate::fetch) fn fingerprint(&self) -> Digest {
        let token = self.identity_token.as_ref().map(Secret::expose).unwrap_or_default();
        let parts = [self.user.as_str(), self.password.expose(), token];
        let framed: String = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
        Digest::sha256(framed.as_bytes())
    }

    fn is_empty(&self) -> bool {
        self.user.is_empty() && self.password.expose().is_empty() && self.identity_token.is_none()
    }
}

/// A text that no output shows.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub(in crate::fetch) struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub(in crate::fetch) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, to be sent and not to be printed.
    pub(in crate::fetch) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What an authentication file says; `credsStore` and everything else is ignored (rule U-4).
#[derive(serde::Deserialize)]
struct Content {
    #[serde(default)]
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
}

#[derive(serde::Deserialize)]
struct Entry {
    auth: Option<Secret>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<Secret>,
}

impl Content {
    /// The entry of `repository`, of the nearest namespace above it, or of its host (rules U-4, U-5).
    fn find(&self, file: &AuthFile, repository: &str) -> Result<Option<Credentials>, Error> {
        let host = repository.split('/').next().unwrap_or_default();
        if self.helpers.as_ref().is_some_and(|helpers| helpers.contains_key(host)) {
            return Err(file.error(&format!(
                "it leaves \"{host}\" to a credential helper, which is not supported yet: name a file with literal credentials with --authfile"
            )));
        }
        let Some(auths) = &self.auths else { return Ok(None) };
        let namespaces = std::iter::successors(Some(repository), |key| Some(key.rsplit_once('/')?.0));
        let exact = namespaces.filter(|key| !file.legacy || *key == host).find_map(|key| auths.get(key));
        let entry = exact.or_else(|| {
            auths.iter().find(|(key, _)| entry_host(key, file.legacy) == one_docker_io(host)).map(|(_, e)| e)
        });
        match entry {
            Some(Some(entry)) => entry.decode(file),
            Some(None) | None => Ok(None),
        }
    }
}

impl Entry {
    /// `auth` is base64 of `user:password`; without a colon the entry counts as empty (rule U-4).
    fn decode(&self, file: &AuthFile) -> Result<Option<Credentials>, Error> {
        let encoded = self.auth.as_ref().map(Secret::expose).unwrap_or_default();
        let decoded = json::decode_base64(encoded)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| file.error("an \"auth\" member is not base64 of text"))?;
        let Some((user, password)) = decoded.split_once(':') else { return Ok(None) };
        let credentials = Credentials {
            user: user.to_owned(),
            password: Secret::new(password.trim_matches('\0').to_owned()),
            identity_token: self.identity_token.clone().filter(|token| !token.expose().is_empty()),
        };
        Ok((!credentials.is_empty()).then_some(credentials))
    }
}

/// The files of rule U-2 in order; `variable` is the environment.
fn search(uid: u32, variable: impl Fn(&str) -> Option<OsString>) -> Vec<AuthFile> {
    let directory = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = directory("HOME");
    let under_home = |name: &str| home.as_ref().map(|home| home.join(name));
    let runtime = directory("XDG_RUNTIME_DIR")
        .map_or_else(|| PathBuf::from(format!("/run/containers/{uid}")), |dir| dir.join("containers"));
    let config = directory("XDG_CONFIG_HOME").or_else(|| under_home(".config"));
    let docker = directory("DOCKER_CONFIG").or_else(|| under_home(".docker"));
    // In a session of root, podman writes below that session's directory.
    let session = (uid == 0 && home.is_none()).then(|| PathBuf::from("/run/user/0/containers/auth.json"));
    let current = [
        Some(runtime.join("auth.json")),
        session,
        config.map(|dir| dir.join("containers/auth.json")),
        docker.map(|dir| dir.join("config.json")),
    ];
    let current = current.into_iter().flatten().map(|path| AuthFile { path, legacy: false });
    let legacy = under_home(".dockercfg").map(|path| AuthFile { path, legacy: true });
    current.chain(legacy).collect()
}

/// The host that a key of `auths` is for: a key with a scheme, or of a legacy file, may be a URL (rule U-4).
fn entry_host(key: &str, legacy: bool) -> &str {
    let rest = key.strip_prefix("http://").unwrap_or(key);
    let rest = rest.strip_prefix("https://").unwrap_or(rest);
    let is_url = legacy || rest.len() != key.len();
    one_docker_io(if is_url { rest.split('/').next().unwrap_or_default() } else { rest })
}

/// One name for the registry of Docker Hub, which has three (rule U-4).
fn one_docker_io(host: &str) -> &str {
    match host {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const U_P: &str = "dTpw";

    fn find(content: &str, repository: &str) -> Result<Option<(String, String)>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        match Source::File(file.path().to_owned()).find(repository) {
            Ok(found) => Ok(found.map(|c| (c.user, c.password.expose().to_owned()))),
            Err(Error::AuthFile { detail, .. }) => Err(detail),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_nearest_key_wins_and_urls_are_normalised() {
        let entry = |key: &str| format!("{{\"auths\":{{\"{key}\":{{\"auth\":\"{U_P}\"}}}}}}");
        for (key, repository, found) in [
            ("q.io/a/b", "q.io/a/b", true),
            ("q.io/a", "q.io/a/b", true),
            ("q.io", "q.io/a/b", true),
            ("q.io/a/b/c", "q.io/a/b", false),
            ("q.io/aa", "q.io/a/b", false),
            ("https://q.io/v1/", "q.io/a/b", true),
            ("http://q.io", "q.io/a/b", true),
            ("q.io/v1/", "q.io/a/b", false),
            ("q.io", "q.io:443/a/b", false),
            ("https://index.docker.io/v1/", "docker.io/library/x", true),
            ("registry-1.docker.io", "docker.io/library/x", true),
            ("q.io", "evil-q.io/a", false),
        ] {
            let credentials = found.then(|| ("u".to_owned(), "p".to_owned()));
            assert_eq!(find(&entry(key), repository), Ok(credentials), "{key} for {repository}");
        }
        let both = "{\"auths\":{\"q.io\":{\"auth\":\"YTpi\"},\"q.io/a\":{\"auth\":\"dTpw\"}}}";
        assert_eq!(find(both, "q.io/a/b").unwrap().unwrap().0, "u");
    }

    #[test]
    fn entries_are_decoded_as_the_reference_does() {
        let none: Result<Option<(String, String)>, String> = Ok(None);
        for (entry, found) in [
            // u:p:q, then "u:p" and two NUL bytes.
            ("{\"auth\":\"dTpwOnE=\"}", Ok(Some(("u".into(), "p:q".into())))),
            ("{\"auth\":\"dTpwAAA=\"}", Ok(Some(("u".into(), "p".into())))),
            ("{\"auth\":\"dXA=\"}", none.clone()),
            ("{\"auth\":\"Og==\"}", none.clone()),
            ("{\"identitytoken\":\"t\"}", none.clone()),
            ("{}", none.clone()),
            ("null", none.clone()),
            ("{\"auth\":\"***\"}", Err("an \"auth\" member is not base64 of text".into())),
        ] {
            assert_eq!(find(&format!("{{\"auths\":{{\"q.io\":{entry}}}}}"), "q.io/a"), found, "{entry}");
        }
        for absent in
            ["{}", "{\"auths\":null}", "{\"credsStore\":\"x\"}", "{\"credHelpers\":{\"other\":\"x\"}}"]
        {
            assert_eq!(find(absent, "q.io/a"), none, "{absent}");
        }
    }

    #[test]
    fn an_identity_token_needs_a_user() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"auths\":{\"q.io\":{\"auth\":\"dTo=\",\"identitytoken\":\"t\"}}}")
            .unwrap();
        let found = Source::File(file.path().to_owned()).find("q.io/a").unwrap().unwrap();
        assert_eq!(found.identity_token, Some(Secret::new("t".into())));
    }

    #[test]
    fn what_cannot_be_used_is_an_error_and_shows_no_secret() {
        for content in [
            "",
            "{",
            "{\"auths\":[\"hunter2\"]}",
            "{\"auths\":{\"q.io\":\"hunter2\"}}",
            "{\"auths\":{\"q.io\":{\"auth\":{\"hunter2\":1}}}}",
            "{\"auths\":{}} hunter2",
            "{\"credHelpers\":{\"q.io\":\"hunter2\"},\"auths\":{\"q.io\":{\"auth\":\"dTpw\"}}}",
        ] {
            let detail = find(content, "q.io/a").unwrap_err();
            assert!(!detail.contains("hunter2"), "{detail}");
        }
        let absent = Source::File("/nonexistent/auth.json".into());
        assert!(matches!(absent.find("q.io/a"), Err(Error::AuthFile { .. })));
        let directory = Source::File("/".into());
        assert!(matches!(directory.find("q.io/a"), Err(Error::AuthFile { .. })));
    }

    #[test]
    fn the_first_file_that_knows_the_repository_wins() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str, legacy| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            AuthFile { path, legacy }
        };
        let absent = AuthFile { path: dir.path().join("absent"), legacy: false };
        let other = file("a", "{\"auths\":{\"other\":{\"auth\":\"YTpi\"}}}", false);
        let legacy = file("b", "{\"https://q.io/v1/\":{\"auth\":\"dTpw\"}}", true);
        let broken = file("c", "broken", false);
        let files = vec![absent, other, legacy, broken.clone()];
        assert_eq!(Source::Search(files.clone()).find("q.io/a").unwrap().unwrap().user, "u");
        assert!(Source::Search(files).find("z.io/a").is_err());
        assert!(Source::Search(vec![broken]).find("q.io/a").is_err());
        assert_eq!(Source::Anonymous.find("q.io/a").unwrap(), None);
    }

    #[test]
    fn only_the_run_directory_counts_without_the_files_of_the_user() {
        let paths = |files: Vec<AuthFile>| -> Vec<String> {
            files.into_iter().map(|file| file.path.display().to_string()).collect()
        };
        let of_root = ["/run/containers/0/auth.json", "/run/user/0/containers/auth.json"];
        assert_eq!(paths(search(0, |_| None)), of_root);
        assert_eq!(
            paths(search(7, |name| (name == "HOME").then(|| "/h".into()))),
            [
                "/run/containers/7/auth.json",
                "/h/.config/containers/auth.json",
                "/h/.docker/config.json",
                "/h/.dockercfg"
            ]
        );
        assert_eq!(
            paths(search(7, |name| (name != "HOME").then(|| format!("/{name}").into()))),
            [
                "/XDG_RUNTIME_DIR/containers/auth.json",
                "/XDG_CONFIG_HOME/containers/auth.json",
                "/DOCKER_CONFIG/config.json"
            ]
        );
    }

    #[test]
    fn fingerprints_tell_credentials_apart() {
        let credentials = |user: &str, password: &str, token: Option<&str>| Credentials {
            user: user.into(),
            password: Secret::new(password.into()),
            identity_token: token.map(|t| Secret::new(t.into())),
        };
        let all = [
            credentials("a", "bc", None),
            credentials("ab", "c", None),
            credentials("a", "b", Some("c")),
            credentials("a", "b", None),
        ];
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert_eq!(a.fingerprint() == b.fingerprint(), i == j);
            }
        }
        assert!(!format!("{:?}", credentials("a", "hunter2", Some("hunter2"))).contains("hunter2"));
    }
}
