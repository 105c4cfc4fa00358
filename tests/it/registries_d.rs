//! Configuration and local evidence: registries.d, lookaside stores, the search for policy.json, local images.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::Mode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;
use vouchd::config::{self, Directories, Environment, PolicySource, RegistriesD, User};
use vouchd::diagnostic::Code;
use vouchd::digest::Digest;
use vouchd::evaluate::evidence::{LocatedSignature, ManifestEvidence};
use vouchd::fetch::keys::KeyFiles;
use vouchd::fetch::registry::Errand;
use vouchd::fetch::{self, Budget, local, lookaside, registry};
use vouchd::manifest::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use vouchd::reference::{ImageName, LayoutImage, Named};
use vouchd::verify::UntrustedSignature;

/// A signature as far as rule B-3 looks.
const BLOB: &[u8] = &[0x90, 1, 2, 3];

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn make_fifo(path: &Path) {
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn root_with_user(tmp: &Path) -> Environment {
    let user = User::at_home(tmp.join("home"));
    Environment { root: tmp.join("root"), uid: 0, user: Some(user) }
}

mod vectors {
    use super::*;

    fn create(tmp: &Path, file: &Value) {
        let path = tmp.join(file["path"].as_str().unwrap());
        match file["kind"].as_str().unwrap() {
            "dir" => fs::create_dir_all(&path).unwrap(),
            "file" => write(&path, file["content"].as_str().unwrap()),
            "symlink" => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                symlink(file["target"].as_str().unwrap(), &path).unwrap();
            }
            other => panic!("{other}"),
        }
    }

    /// The verdicts themselves are compared in `vectors`.
    #[test]
    fn what_the_reference_refuses_has_its_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/registries-d.json");
        let set: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let mut refused = 0;
        for case in set["cases"].as_array().unwrap().iter().filter(|case| case["verdict"] == "error") {
            let tmp = TempDir::new().unwrap();
            for file in case["files"].as_array().unwrap() {
                create(tmp.path(), file);
            }
            let environment = root_with_user(tmp.path());
            let directories = match case["layout"].as_str().unwrap() {
                "dir" => Directories::explicit(tmp.path().join("registries.d"), &environment),
                _ => Directories::search(&environment),
            };
            let error = RegistriesD::load(&directories).unwrap_err();
            assert_eq!(error.code(), Code::RegistriesDInvalid, "{}", case["id"]);
            refused += 1;
        }
        assert!(refused > 10, "{refused}");
    }
}

mod settings {
    use super::*;

    fn load(content: &str) -> Result<RegistriesD, config::Error> {
        let tmp = TempDir::new().unwrap();
        write(&tmp.path().join("a.yaml"), content);
        RegistriesD::load(&Directories::explicit(tmp.path().to_owned(), &Environment::system()))
    }

    #[test]
    fn booleans_are_plain_words_of_yaml_1_1() {
        let image = Named::parse("example.com/a:1").unwrap();
        for (value, wanted) in [
            ("true", Some(true)),
            ("On", Some(true)),
            ("n", Some(false)),
            ("~", Some(false)),
            ("", Some(false)),
            ("&a YES", Some(true)),
            ("tRue", None),
            ("yES", None),
            ("1", None),
            ("'yes'", None),
            ("!!str yes", None),
            ("!!bool \"yes\"", None),
            ("|-\n    yes", None),
            ("[yes]", None),
        ] {
            let found = load(&format!("docker:\n  example.com:\n    use-sigstore-attachments: {value}\n"));
            assert_eq!(found.as_ref().ok().map(|c| c.use_attachments(&image)), wanted, "{value}: {found:?}");
        }
        for content in [
            "\u{feff}default-docker:\r\n  use-sigstore-attachments: on\r\n",
            "é: é\ndefault-docker: {é: é, use-sigstore-attachments: on}",
        ] {
            assert!(load(content).unwrap().use_attachments(&image), "{content}");
        }
        let alias = "x: &a off\ny: &b {use-sigstore-attachments: on}\ndocker:\n  example.com/a: {use-sigstore-attachments: *a}\n  example.com: {<<: *b}\n";
        let configuration = load(alias).unwrap();
        assert!(!configuration.use_attachments(&image));
        assert!(configuration.use_attachments(&Named::parse("example.com/b:1").unwrap()));
    }

    #[test]
    fn what_the_reference_cannot_read_is_refused() {
        for content in [
            "docker: {a: {lookaside: \"x\\/y\"}}",
            "docker:\n  a: {}\n  !x a: {}\n",
            "docker:\n  a: {}\n  'a': {}\n",
            "docker:\n\ta: {}\n",
            "docker: {}\n\u{1}",
            "docker: {}\n\0",
            "- docker\n",
            "docker\n",
            "docker: x\n",
            "default-docker: [x]\n",
            "docker: {a: {lookaside: [x]}}",
            "docker: {a: *b}",
            "a: &a [*a]",
            "{{{",
        ] {
            let error = load(content).unwrap_err();
            assert_eq!(error.code(), Code::RegistriesDInvalid, "{content}");
            assert!(error.to_string().contains("a.yaml"), "{error}");
        }
        let tmp = TempDir::new().unwrap();
        fs::write(tmp.path().join("a.yaml"), b"docker: {\xff: {}}").unwrap();
        let directories = Directories::explicit(tmp.path().to_owned(), &Environment::system());
        assert!(RegistriesD::load(&directories).is_err());
        fs::write(tmp.path().join("a.yaml"), vec![b' '; config::CONFIGURATION_BYTES]).unwrap();
        assert!(RegistriesD::load(&directories).is_ok());
        fs::write(tmp.path().join("a.yaml"), vec![b' '; config::CONFIGURATION_BYTES + 1]).unwrap();
        assert!(RegistriesD::load(&directories).is_err());
        fs::remove_file(tmp.path().join("a.yaml")).unwrap();
        make_fifo(&tmp.path().join("a.yaml"));
        assert!(RegistriesD::load(&directories).is_err());
        fs::remove_file(tmp.path().join("a.yaml")).unwrap();
        fs::create_dir(tmp.path().join("a.yaml")).unwrap();
        assert!(RegistriesD::load(&directories).is_ok());
    }

    #[test]
    fn a_setting_names_its_file_and_scope() {
        let tmp = TempDir::new().unwrap();
        let file = tmp.path().join("a.yaml");
        write(
            &file,
            "default-docker: {use-sigstore-attachments: true}\ndocker:\n  '*.example.com': {lookaside: 'https://u:secret@['}\n",
        );
        let environment = root_with_user(tmp.path());
        let configuration =
            RegistriesD::load(&Directories::explicit(tmp.path().to_owned(), &environment)).unwrap();
        let image = Named::parse("a.example.com/r:1").unwrap();
        let origin = configuration.lookaside_read_origin(&image).unwrap();
        assert_eq!((origin.file.as_path(), origin.scope.as_deref()), (file.as_path(), Some("*.example.com")));
        let origin = configuration.attachments_origin(&image).unwrap();
        assert_eq!(origin.to_string(), format!("\"default-docker\" in \"{}\"", file.display()));
        let error = configuration.lookaside_read(&image).unwrap_err();
        assert_eq!(error.code(), Code::RegistriesDInvalid);
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        let other = Named::parse("example.com/r:1").unwrap();
        assert_eq!(configuration.lookaside_read_origin(&other), None);
        assert_eq!(
            configuration.lookaside_read(&other).unwrap().to_string(),
            "file:///var/lib/containers/sigstore/r"
        );
    }

    #[test]
    fn users_have_directories_and_a_store_of_their_own() {
        let tmp = TempDir::new().unwrap();
        let mut environment = root_with_user(tmp.path());
        environment.uid = 1000;
        let section = |host: &str| format!("docker:\n  example.com: {{lookaside: 'https://{host}'}}\n");
        let image = Named::parse("example.com/r:1").unwrap();
        let read = |environment: &Environment| {
            let configuration = RegistriesD::load(&Directories::search(environment)).unwrap();
            configuration.lookaside_read(&image).unwrap().to_string()
        };
        let home = tmp.path().join("home").display().to_string();
        assert_eq!(read(&environment), format!("file://{home}/.local/share/containers/sigstore/r"));
        for (directory, host) in [
            ("root/usr/share/containers/registries.rootful.d", ""),
            ("root/usr/share/containers/registries.d", "usr"),
            ("root/usr/share/containers/registries.rootless.d", "usr-rootless"),
            ("root/etc/containers/registries.rootful.d", ""),
            ("root/etc/containers/registries.d", "etc"),
            ("root/etc/containers/registries.rootless.d", "etc-rootless"),
            ("root/etc/containers/registries.rootless.d/1000", "etc-uid"),
            ("root/etc/containers/registries.rootless.d/1001", ""),
            ("home/.config/containers/registries.d", "home"),
        ] {
            write(
                &tmp.path().join(directory).join("a.yaml"),
                section(if host.is_empty() { "no" } else { host }),
            );
            if !host.is_empty() {
                assert_eq!(read(&environment), format!("https://{host}/r"));
            }
        }
        environment.user.as_mut().unwrap().xdg_config_home = Some(tmp.path().join("xdg"));
        assert_eq!(read(&environment), "https://etc-uid/r");
        environment.user = None;
        assert_eq!(read(&environment), "https://etc-uid/r");
    }
}

mod policy {
    use super::*;

    fn found(environment: &Environment) -> Result<String, Code> {
        match PolicySource::Search(environment.clone()).read() {
            Ok(file) => Ok(String::from_utf8(file.bytes).unwrap()),
            Err(error) => Err(error.code()),
        }
    }

    #[test]
    fn the_first_file_that_exists_is_read() {
        let tmp = TempDir::new().unwrap();
        let mut environment = root_with_user(tmp.path());
        assert_eq!(found(&environment), Err(Code::PolicyMissing));
        for path in [
            "root/usr/share/containers/policy.json",
            "root/etc/containers/policy.json",
            "home/.config/containers/policy.json",
        ] {
            write(&tmp.path().join(path), path);
            assert_eq!(found(&environment).as_deref(), Ok(path));
        }
        let user = environment.user.as_mut().unwrap();
        user.xdg_config_home = Some(tmp.path().join("xdg"));
        assert_eq!(found(&environment).as_deref(), Ok("root/etc/containers/policy.json"));
        write(&tmp.path().join("xdg/containers/policy.json"), "xdg");
        assert_eq!(found(&environment).as_deref(), Ok("xdg"));
        environment.user.as_mut().unwrap().policy_json = Some(tmp.path().join("named.json"));
        assert_eq!(found(&environment), Err(Code::PolicyUnreadable));
        write(&tmp.path().join("named.json"), "named");
        assert_eq!(found(&environment).as_deref(), Ok("named"));
        environment.user = None;
        assert_eq!(found(&environment).as_deref(), Ok("root/etc/containers/policy.json"));
        let explicit = PolicySource::Explicit(tmp.path().join("named.json")).read().unwrap();
        assert_eq!(explicit.path, tmp.path().join("named.json"));
    }

    #[test]
    fn only_an_absent_file_leads_to_the_next() {
        let tmp = TempDir::new().unwrap();
        let environment = Environment { user: None, ..root_with_user(tmp.path()) };
        write(&tmp.path().join("root/usr/share/containers/policy.json"), "vendor");
        let etc = tmp.path().join("root/etc");
        let path = etc.join("containers/policy.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(found(&environment).as_deref(), Ok("vendor"));
        symlink("nowhere", &path).unwrap();
        assert_eq!(found(&environment), Err(Code::PolicyUnreadable));
        fs::remove_file(&path).unwrap();
        symlink("policy.json", &path).unwrap();
        assert_eq!(found(&environment), Err(Code::PolicyUnreadable));
        fs::remove_file(&path).unwrap();
        make_fifo(&path);
        assert_eq!(found(&environment), Err(Code::PolicyUnreadable));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(found(&environment), Err(Code::PolicyUnreadable));
        fs::remove_dir_all(&etc).unwrap();
        assert_eq!(found(&environment).as_deref(), Ok("vendor"));
        symlink("nowhere", &etc).unwrap();
        assert_eq!(found(&environment), Err(Code::PolicyUnreadable));
        fs::remove_file(&etc).unwrap();
        fs::write(&etc, "a file").unwrap();
        assert_eq!(found(&environment), Err(Code::PolicyUnreadable));
    }

    #[test]
    fn a_policy_has_a_largest_size() {
        let tmp = TempDir::new().unwrap();
        let path = tmp.path().join("policy.json");
        let file = fs::File::create(&path).unwrap();
        file.set_len(u64::try_from(config::POLICY_BYTES + 1).unwrap()).unwrap();
        let error = PolicySource::Explicit(path).read().unwrap_err();
        assert_eq!(error.code(), Code::PolicyUnreadable);
        assert!(error.to_string().contains("33554432"), "{error}");
    }

    #[test]
    fn our_own_policy_comes_first_and_is_roots() {
        let tmp = TempDir::new().unwrap();
        let environment = root_with_user(tmp.path());
        write(&tmp.path().join("root/etc/containers/policy.json"), "containers");
        let own = tmp.path().join("root/etc/vouchd/policy.json");
        write(&own, "own");
        let directory = own.parent().unwrap();
        let set_mode =
            |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set_mode(directory, 0o755);
        set_mode(&own, 0o644);
        if !is_root() {
            assert_eq!(found(&environment), Err(Code::PolicyInvalid));
            return;
        }
        assert_eq!(found(&environment).as_deref(), Ok("own"));
        for (path, mode) in [(own.as_path(), 0o664), (&own, 0o646), (directory, 0o775), (directory, 0o1777)] {
            set_mode(path, mode);
            assert_eq!(found(&environment), Err(Code::PolicyInvalid), "{mode:o}");
            set_mode(directory, 0o755);
            set_mode(&own, 0o644);
        }
        std::os::unix::fs::chown(&own, Some(1), None).unwrap();
        assert_eq!(found(&environment), Err(Code::PolicyInvalid));
        fs::remove_file(&own).unwrap();
        let target = tmp.path().join("elsewhere/policy.json");
        symlink(&target, &own).unwrap();
        assert_eq!(found(&environment), Err(Code::PolicyUnreadable));
        // A link could lead by way of somebody else's directory, even to a file of root's.
        write(&target, "target");
        set_mode(target.parent().unwrap(), 0o755);
        set_mode(&target, 0o644);
        assert_eq!(found(&environment), Err(Code::PolicyInvalid));
        fs::remove_file(&own).unwrap();
        write(&own, "own");
        set_mode(&own, 0o644);
        assert_eq!(found(&environment).as_deref(), Ok("own"));
        set_mode(directory.parent().unwrap(), 0o777);
        assert_eq!(found(&environment), Err(Code::PolicyInvalid));
    }
}

mod lookaside_store {
    use super::*;

    fn digest() -> Digest {
        Digest::sha256(b"manifest")
    }

    /// The directory of the signatures of `example.com/ns/r` at [`digest`].
    fn store(tmp: &Path) -> PathBuf {
        let directory = tmp.join(format!("ns/r@sha256={}", digest().hex()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    async fn signatures_at(url: &str, budget: &Budget) -> Result<Vec<LocatedSignature>, fetch::Error> {
        let client = registry::Client::new(registry::Settings::default());
        let tmp = TempDir::new().unwrap();
        write(&tmp.path().join("a.yaml"), format!("default-docker: {{lookaside: '{url}'}}"));
        let directories = Directories::explicit(tmp.path().to_owned(), &Environment::system());
        let image = Named::parse("example.com/ns/r:1").unwrap();
        let base = RegistriesD::load(&directories).unwrap().lookaside_read(&image).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        lookaside::signatures(&client, &Errand::new(&image, budget, deadline), &base, &digest()).await
    }

    async fn signatures(tmp: &Path) -> Result<Vec<LocatedSignature>, fetch::Error> {
        signatures_at(&format!("file://{}", tmp.display()), &Budget::new()).await
    }

    #[tokio::test]
    async fn a_gap_ends_the_list() {
        let tmp = TempDir::new().unwrap();
        assert_eq!(signatures(&tmp.path().join("absent")).await, Ok(Vec::new()));
        assert_eq!(signatures(tmp.path()).await, Ok(Vec::new()));
        let store = store(tmp.path());
        for number in [1, 2, 4] {
            fs::write(store.join(format!("signature-{number}")), BLOB).unwrap();
        }
        let found = signatures(tmp.path()).await.unwrap();
        assert_eq!(found.len(), 2);
        for (number, signature) in (1..).zip(found) {
            let path = store.join(format!("signature-{number}"));
            assert_eq!(signature.location, format!("file://{}", path.display()));
            assert_eq!(signature.signature, UntrustedSignature::SimpleSigning(BLOB.to_vec()));
        }
    }

    #[tokio::test]
    async fn there_may_be_127_signatures_and_no_more() {
        let tmp = TempDir::new().unwrap();
        let store = store(tmp.path());
        for number in 1..=127 {
            fs::write(store.join(format!("signature-{number}")), BLOB).unwrap();
        }
        assert_eq!(signatures(tmp.path()).await.unwrap().len(), 127);
        fs::write(store.join("signature-128"), BLOB).unwrap();
        assert_eq!(signatures(tmp.path()).await.unwrap_err().code(), Code::LookasideUnavailable);
    }

    #[tokio::test]
    async fn whatever_is_neither_a_signature_nor_missing_spoils_all() {
        let tmp = TempDir::new().unwrap();
        let store = store(tmp.path());
        fs::write(store.join("signature-1"), BLOB).unwrap();
        let second = store.join("signature-2");
        let refused = async |what: &str| {
            let error = signatures(tmp.path()).await.unwrap_err();
            let codes = [Code::LookasideUnavailable, Code::MalformedSignature];
            assert!(codes.contains(&error.code()), "{what}: {error}");
            assert!(error.to_string().contains("signature-2"), "{what}: {error}");
            if second.is_dir() { fs::remove_dir(&second).unwrap() } else { fs::remove_file(&second).unwrap() }
        };
        for (what, blob) in [
            ("empty", b"".to_vec()),
            ("a web page", b"<html>".to_vec()),
            ("an unknown format", b"\0other\n".to_vec()),
            ("too large", [BLOB, &vec![0; fetch::SIGNATURE_BYTES]].concat()),
        ] {
            fs::write(&second, blob).unwrap();
            refused(what).await;
        }
        fs::create_dir(&second).unwrap();
        refused("a directory").await;
        make_fifo(&second);
        refused("a FIFO").await;
        symlink("signature-2", &second).unwrap();
        refused("a loop").await;
        symlink("/dev/zero", &second).unwrap();
        refused("a device").await;
        if !is_root() {
            fs::write(&second, BLOB).unwrap();
            fs::set_permissions(&second, fs::Permissions::from_mode(0o000)).unwrap();
            refused("not permitted").await;
        }
        assert_eq!(signatures(tmp.path()).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_a_directory_is_an_error() {
        let tmp = TempDir::new().unwrap();
        fs::write(tmp.path().join("ns"), "").unwrap();
        assert_eq!(signatures(tmp.path()).await.unwrap_err().code(), Code::LookasideUnavailable);
    }

    #[tokio::test]
    async fn the_largest_signature_is_4_mib_and_the_budget_counts() {
        let tmp = TempDir::new().unwrap();
        let store = store(tmp.path());
        let mut blob = vec![0; fetch::SIGNATURE_BYTES];
        blob[0] = BLOB[0];
        for number in 1..=8 {
            fs::write(store.join(format!("signature-{number}")), &blob).unwrap();
        }
        assert_eq!(signatures(tmp.path()).await.unwrap().len(), 8);
        fs::write(store.join("signature-9"), &blob).unwrap();
        assert_eq!(signatures(tmp.path()).await, Err(fetch::Error::EvidenceTooLarge));
    }

    #[tokio::test]
    async fn other_schemes_cannot_be_read() {
        for url in ["ftp://x.example/s", "/var/sigs", "file:rel", "mailto:a@b", "x"] {
            let error = signatures_at(url, &Budget::new()).await.unwrap_err();
            assert_eq!(error.code(), Code::LookasideUnavailable, "{url}");
        }
    }

    #[tokio::test]
    async fn over_http_only_404_is_missing() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for (second, wanted) in [
            ("404 Not Found", Some(1)),
            ("403 Forbidden", None),
            ("410 Gone", None),
            ("500 Internal Server Error", None),
            ("204 No Content", None),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://user:secret@{}/s?k=v", listener.local_addr().unwrap());
            let server = tokio::spawn(async move {
                let mut lines = Vec::new();
                for (status, body) in [("200 OK", BLOB), (second, b"".as_slice())] {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(stream.read_u8().await.unwrap());
                    }
                    lines.push(String::from_utf8(request).unwrap());
                    let head = format!(
                        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                        body.len()
                    );
                    stream.write_all(head.as_bytes()).await.unwrap();
                    stream.write_all(body).await.unwrap();
                }
                lines
            });
            let found = signatures_at(&url, &Budget::new()).await;
            assert_eq!(found.as_ref().ok().map(Vec::len), wanted, "{second}: {found:?}");
            assert!(!format!("{found:?}").contains("secret"), "{found:?}");
            let requests = server.await.unwrap();
            for (number, request) in (1..).zip(&requests) {
                let hex = digest().hex().to_owned();
                let line = format!("GET /s/ns/r@sha256={hex}/signature-{number}?k=v HTTP/1.1\r\n");
                assert!(request.starts_with(&line), "{request}");
                let basic = "Basic dXNlcjpzZWNyZXQ=";
                assert!(request.contains(basic), "{request}");
            }
        }
    }
}

mod paths {
    use super::*;

    /// The fixture of the scope-match vectors.
    fn fixture() -> (TempDir, PathBuf) {
        let tmp = TempDir::new().unwrap();
        let root = tmp.path().canonicalize().unwrap();
        for directory in ["a/b/c", "a/layout", "other", "sp ace"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::write(root.join("a/b/img.tar"), "").unwrap();
        for (link, target) in [
            ("link", "a"),
            ("a/up", ".."),
            ("a/b/link.tar", "img.tar"),
            ("dangling", "nowhere"),
            ("loop", "loop"),
            ("deep", "a/b/c"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        (tmp, root)
    }

    #[test]
    fn paths_lead_where_the_reference_says() {
        let (_tmp, root) = fixture();
        for (path, wanted) in [
            ("/a/b/c", Some("/a/b/c")),
            ("/link", Some("/a")),
            ("/link/b/c", Some("/a/b/c")),
            ("/a/up/other", Some("/other")),
            ("/a/b/../b/c/", Some("/a/b/c")),
            ("//a///b", Some("/a/b")),
            ("/./a", Some("/a")),
            ("/a/b/new", Some("/a/b/new")),
            ("/link/new", Some("/a/new")),
            ("/sp ace", Some("/sp ace")),
            ("/a/b/img.tar", Some("/a/b/img.tar")),
            ("/a/b/link.tar", Some("/a/b/img.tar")),
            ("/a/up", Some("")),
            ("/link/../other", Some("/other")),
            ("/loop", None),
            ("/dangling", None),
            ("/dangling/", None),
            ("/a/b/img.tar/", None),
            ("/a/b/img.tar/child", None),
            ("/missing/x", None),
            ("/a/new/", None),
            ("/a/new/.", None),
            ("/a/b/c/new/../x", Some("/a/b/c/x")),
        ] {
            for transport in ["dir", "oci"] {
                let name = ImageName::parse(&format!("{transport}:{}{path}", root.display())).unwrap();
                let found = local::resolve_in(Path::new("/"), &Environment::system(), name);
                let identity = found.as_ref().ok().map(|image| image.policy_identity().to_owned());
                let wanted = wanted.map(|path| format!("{}{path}", root.display()));
                assert_eq!(identity, wanted, "{path}: {found:?}");
            }
        }
    }

    #[test]
    fn a_path_that_means_two_directories_is_refused() {
        let (_tmp, root) = fixture();
        let identity = |path: &str| {
            let name = ImageName::parse(&format!("dir:{}{path}", root.display())).unwrap();
            local::resolve_in(Path::new("/"), &Environment::system(), name)
                .map(|image| image.policy_identity().to_owned())
        };
        // The file system says /a/b; the reference's cleaning says the fixture itself.
        assert_eq!(identity("/deep/..").unwrap_err().code(), Code::LocalImageInvalid);
        assert_eq!(identity("/deep/../../layout").unwrap_err().code(), Code::LocalImageInvalid);
        // With nothing there in the file system, the reference's cleaning is all there is.
        assert_eq!(identity("/a/up/../x"), Ok(format!("{}/a/x", root.display())));
    }

    #[test]
    fn relative_paths_start_in_the_working_directory() {
        let (_tmp, root) = fixture();
        for (path, wanted) in
            [("", ""), (".", ""), ("a/b", "/a/b"), ("./a/b/c", "/a/b/c"), ("link/b", "/a/b"), ("new", "/new")]
        {
            let name = ImageName::parse(&format!("dir:{path}")).unwrap();
            let image = local::resolve_in(&root, &Environment::system(), name).unwrap();
            assert_eq!(image.policy_identity(), format!("{}{wanted}", root.display()), "{path}");
        }
        let up =
            local::resolve_in(&root.join("a"), &Environment::system(), ImageName::parse("dir:..").unwrap())
                .unwrap();
        assert_eq!(up.policy_identity(), root.to_str().unwrap());
    }

    #[test]
    fn files_must_open_and_stores_must_be_named() {
        let (_tmp, root) = fixture();
        make_fifo(&root.join("fifo"));
        for (name, ok) in [
            ("tarball:a/b/img.tar", true),
            ("tarball:a/b/img.tar:fifo", true),
            ("tarball:a/b/img.tar:missing", false),
            ("containers-storage:[vfs@/var//x/../store/+/run]busybox", true),
            ("containers-storage:[vfs@relative]busybox", false),
        ] {
            let found = local::resolve_in(&root, &Environment::system(), ImageName::parse(name).unwrap());
            assert_eq!(found.is_ok(), ok, "{name}: {found:?}");
        }
        let name = ImageName::parse("containers-storage:[vfs@/var//x/../store/+/run]busybox").unwrap();
        let image = local::resolve_in(&root, &Environment::system(), name).unwrap();
        assert_eq!(image.policy_identity(), "[vfs@/var/store]docker.io/library/busybox:latest");
    }
}

mod local_images {
    use super::*;

    const MANIFEST: &str =
        r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}"#;

    fn code<T>(result: Result<T, fetch::Error>) -> Option<Code> {
        result.err().map(|error| error.code())
    }

    #[test]
    fn a_directory_holds_manifests_and_signatures() {
        let tmp = TempDir::new().unwrap();
        let path = tmp.path().to_str().unwrap();
        let read = || read_dir(path, None);
        assert_eq!(code(read()), Some(Code::LocalImageInvalid));
        write(&tmp.path().join("manifest.json"), MANIFEST);
        for number in [1, 2, 4] {
            write(&tmp.path().join(format!("signature-{number}")), BLOB);
        }
        let found = read().unwrap();
        assert_eq!(
            (found.bytes.as_slice(), found.media_type.as_str()),
            (MANIFEST.as_bytes(), DOCKER_MANIFEST)
        );
        let locations: Vec<_> = found.signatures.iter().map(|s| s.location.clone()).collect();
        assert_eq!(locations, [format!("{path}/signature-1"), format!("{path}/signature-2")]);

        let [sha256, sha512] = ["sha256", "sha512"].map(|algorithm| {
            let length = if algorithm == "sha256" { 64 } else { 128 };
            Digest::parse(&format!("{algorithm}:{}", "a".repeat(length))).unwrap()
        });
        for (digest, prefix) in [(&sha256, ""), (&sha512, "sha512-")] {
            assert_eq!(code(read_dir(path, Some(digest))), Some(Code::LocalImageInvalid));
            let hex = digest.hex();
            write(&tmp.path().join(format!("{prefix}{hex}.manifest.json")), "{}");
            write(&tmp.path().join(format!("{prefix}{hex}.signature-1")), BLOB);
            let found = read_dir(path, Some(digest)).unwrap();
            assert_eq!((found.bytes.as_slice(), found.signatures.len()), (b"{}".as_slice(), 1));
        }
    }

    #[test]
    fn a_damaged_directory_is_an_error() {
        let tmp = TempDir::new().unwrap();
        let path = tmp.path().to_str().unwrap();
        let (manifest, signature) = (tmp.path().join("manifest.json"), tmp.path().join("signature-1"));
        let read = || read_dir(path, None);
        write(&manifest, MANIFEST);
        let large = vec![BLOB[0]; fetch::SIGNATURE_BYTES + 1];
        for (blob, wanted) in [
            (b"".as_slice(), Code::MalformedSignature),
            (b"-----BEGIN", Code::MalformedSignature),
            (&[0x93], Code::MalformedSignature),
            (&large, Code::LocalImageInvalid),
        ] {
            write(&signature, blob);
            assert_eq!(code(read()), Some(wanted));
        }
        fs::remove_file(&signature).unwrap();
        make_fifo(&signature);
        assert_eq!(code(read()), Some(Code::LocalImageInvalid));
        fs::remove_file(&signature).unwrap();
        for number in 1..=128 {
            write(&tmp.path().join(format!("signature-{number}")), BLOB);
        }
        assert_eq!(code(read()), Some(Code::LocalImageInvalid));
        fs::remove_file(tmp.path().join("signature-128")).unwrap();
        assert_eq!(read().unwrap().signatures.len(), 127);
        write(&manifest, vec![b' '; fetch::MANIFEST_BYTES + 1]);
        assert_eq!(code(read()), Some(Code::LocalImageInvalid));
        fs::remove_file(&manifest).unwrap();
        make_fifo(&manifest);
        assert_eq!(code(read()), Some(Code::LocalImageInvalid));
    }

    fn put_blob(layout: &Path, bytes: &str) -> Digest {
        let digest = Digest::sha256(bytes.as_bytes());
        write(&layout.join("blobs/sha256").join(digest.hex()), bytes);
        digest
    }

    fn descriptor(digest: &Digest, media_type: &str, name: Option<&str>) -> String {
        let annotations =
            name.map(|name| format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#));
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}"{}}}"#, annotations.unwrap_or_default())
    }

    #[test]
    fn a_layout_image_is_chosen_by_name_number_or_because_it_is_the_only_one() {
        let tmp = TempDir::new().unwrap();
        let path = tmp.path().to_str().unwrap();
        let (one, two) = (put_blob(tmp.path(), MANIFEST), put_blob(tmp.path(), "{}"));
        let put_index = |entries: &[String]| {
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            write(&tmp.path().join("index.json"), index);
        };
        let read = |image: LayoutImage| local::read_layout(path, &image, &Budget::new());
        let bytes = |image| read(image).map(|e| String::from_utf8(e.bytes).unwrap());
        let named = |name: &str| LayoutImage::Named(name.to_owned());

        assert_eq!(code(read(LayoutImage::Only)), Some(Code::LocalImageInvalid));
        put_index(&[]);
        assert_eq!(code(read(LayoutImage::Only)), Some(Code::LocalImageInvalid));
        put_index(&[descriptor(&one, "", None)]);
        assert_eq!(read(LayoutImage::Only).unwrap().media_type, DOCKER_MANIFEST);
        put_index(&[descriptor(&one, OCI_INDEX, Some("v1")), descriptor(&two, OCI_MANIFEST, Some("v2"))]);
        assert_eq!(code(read(LayoutImage::Only)), Some(Code::LocalImageInvalid));
        assert_eq!(bytes(named("v1")).as_deref(), Ok(MANIFEST));
        assert_eq!(read(named("v1")).unwrap().media_type, OCI_INDEX);
        assert_eq!(bytes(named("v2")).as_deref(), Ok("{}"));
        assert_eq!(code(read(named("v3"))), Some(Code::LocalImageInvalid));
        assert_eq!(bytes(LayoutImage::Index(1)).as_deref(), Ok("{}"));
        assert_eq!(code(read(LayoutImage::Index(2))), Some(Code::LocalImageInvalid));
        put_index(&[descriptor(&one, "", Some("v1")), descriptor(&two, "", Some("v1"))]);
        assert_eq!(code(read(named("v1"))), Some(Code::LocalImageInvalid));
        assert_eq!(local::read_layout_instance(path, &two, &Budget::new()).unwrap().bytes, b"{}");
    }

    #[test]
    fn a_damaged_layout_is_an_error() {
        let tmp = TempDir::new().unwrap();
        let path = tmp.path().to_str().unwrap();
        let digest = put_blob(tmp.path(), MANIFEST);
        let index = tmp.path().join("index.json");
        let read = || local::read_layout(path, &LayoutImage::Only, &Budget::new());
        let good = format!(r#"{{"manifests":[{}]}}"#, descriptor(&digest, OCI_MANIFEST, None));
        write(&index, &good);
        assert!(read().is_ok());
        for damaged in [
            String::new(),
            "[]".to_owned(),
            "{}".to_owned(),
            r#"{"manifests":[[]]}"#.to_owned(),
            r#"{"manifests":[{}]}"#.to_owned(),
            r#"{"manifests":[{"digest":"sha256:../../../etc/passwd"}]}"#.to_owned(),
            good.replace("\"manifests\"", "\"Manifests\""),
            good.replace("\"manifests\"", "\"manife\u{17f}ts\""),
            good.replace("{\"manifests\"", "{\"manifests\":[],\"manifests\""),
            good.replace("\"digest\"", "\"DIGEST\":\"\",\"digest\""),
            good.replace(&format!("\"{OCI_MANIFEST}\""), "1"),
            format!("{good}{}", " ".repeat(fetch::MANIFEST_BYTES)),
        ] {
            write(&index, &damaged);
            assert_eq!(code(read()), Some(Code::LocalImageInvalid), "{:.80}", damaged);
        }
        write(&index, &good);
        let blob = tmp.path().join("blobs/sha256").join(digest.hex());
        write(&blob, "{}");
        assert_eq!(code(read()), Some(Code::DigestMismatch));
        fs::remove_file(&blob).unwrap();
        assert_eq!(code(read()), Some(Code::LocalImageInvalid));
        make_fifo(&blob);
        assert_eq!(code(read()), Some(Code::LocalImageInvalid));
    }
}

mod key_files {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_changed_file_is_read_again() {
        let tmp = TempDir::new().unwrap();
        let path = tmp.path().join("key.pub");
        let text = path.to_str().unwrap();
        let keys = KeyFiles::new(Environment::system());
        assert_eq!(keys.load(text).unwrap_err().code(), Code::KeyFileUnreadable);
        fs::write(&path, "one").unwrap();
        let first = keys.load(text).unwrap();
        assert_eq!((first.source(), first.bytes()), (text, b"one".as_slice()));
        assert!(!Arc::ptr_eq(&first, &keys.load(text).unwrap()), "a file of this second is not kept");
        std::thread::sleep(Duration::from_millis(2_200));
        let kept = keys.load(text).unwrap();
        assert!(Arc::ptr_eq(&kept, &keys.load(text).unwrap()));
        // Same length and time of modification: only the time of the change tells.
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "two").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(keys.load(text).unwrap().bytes(), b"two");
        fs::write(tmp.path().join("other"), "six").unwrap();
        fs::rename(tmp.path().join("other"), &path).unwrap();
        assert_eq!(keys.load(text).unwrap().bytes(), b"six");
        fs::remove_file(&path).unwrap();
        assert_eq!(keys.load(text).unwrap_err().code(), Code::KeyFileUnreadable);
    }

    #[test]
    fn only_small_regular_files_are_keys() {
        let tmp = TempDir::new().unwrap();
        let keys = KeyFiles::new(Environment::system());
        let path = |name: &str| tmp.path().join(name).to_str().unwrap().to_owned();
        make_fifo(&tmp.path().join("fifo"));
        fs::write(path("small"), vec![b'k'; fetch::KEY_FILE_BYTES]).unwrap();
        fs::write(path("large"), vec![b'k'; fetch::KEY_FILE_BYTES + 1]).unwrap();
        for (name, ok) in
            [("small", true), ("large", false), ("fifo", false), (".", false), ("missing", false)]
        {
            assert_eq!(keys.load(&path(name)).is_ok(), ok, "{name}");
        }
        assert!(keys.load("").is_err());
    }
}

/// A manifest of a `dir:` directory with its signatures.
fn read_dir(path: &str, instance: Option<&Digest>) -> Result<ManifestEvidence, fetch::Error> {
    let budget = Budget::new();
    let mut evidence = local::read_dir(path, instance, &budget)?;
    evidence.signatures = local::read_dir_signatures(path, instance, &budget)?;
    Ok(evidence)
}
