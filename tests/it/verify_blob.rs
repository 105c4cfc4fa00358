//! `vouchd verify-blob`: files and bundles, without network and policy.

use std::path::PathBuf;

use rcgen::KeyPair;
use serde_json::Value;

use vouchd::digest::Digest;

use crate::signer::{Content, IN_TOTO, Names, San, Sigstore, Who, bundle as bundle_of, statement};
use crate::support::{Ran, vouchd, write};

const BYTES: &[u8] = b"any file";
const SIGNER: [&str; 4] =
    ["--certificate-identity", "someone@example.com", "--certificate-oidc-issuer", "https://issuer.example"];

struct Files {
    dir: tempfile::TempDir,
    sigstore: Sigstore,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap(), sigstore: Sigstore::new() };
        files.write("file", BYTES);
        files.write("other", b"another file");
        files.write("root.json", files.sigstore.trusted_root().to_string());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        write(self.path(name), content);
    }

    /// A bundle over the file by the holder of such a certificate.
    fn sign(&self, names: &Names) -> Value {
        let identity = self.sigstore.identity(names);
        self.sigstore.sign_v2(&Content::Message(BYTES), Who::Identity(&identity))
    }

    /// Runs the command in the directory of the files; `root` names the trusted root in it.
    fn verify(&self, bundle: &Value, root: Option<&str>, more: &[&str]) -> Ran {
        self.write("bundle.json", bundle.to_string());
        let file = |name: &str| self.path(name).display().to_string();
        let mut arguments = vec!["verify-blob".to_owned(), "--bundle".to_owned(), file("bundle.json")];
        arguments.extend(root.map(|root| format!("--trusted-root={}", file(root))));
        let is_file = |text: &str| ["file", "other", "key.pem", "absent"].contains(&text);
        let whole = |text: &&str| if is_file(text) { file(text) } else { (*text).to_owned() };
        arguments.extend(more.iter().map(whole));
        vouchd(&arguments)
    }
}

fn with(more: &[&'static str]) -> Vec<&'static str> {
    [&SIGNER[..], more].concat()
}

#[test]
fn a_file_is_verified_for_the_signer_who_is_named() {
    let files = Files::new();
    let bundle = files.sign(&Names::default());
    let ran = files.verify(&bundle, Some("root.json"), &with(&["--", "file"]));
    assert_eq!(ran.exit, 0, "{ran:?}");
    let digest = Digest::sha256(BYTES).to_string();
    for wanted in [
        ": verified\n",
        &digest,
        "someone@example.com by way of https://issuer.example",
        "2026-01-01T00:05:00Z",
        "log2026-1.rekor.example, entry 2",
    ] {
        assert!(ran.stdout.contains(wanted), "{wanted}: {ran:?}");
    }
    let ran = files.verify(&bundle, Some("root.json"), &with(&["--", &*digest.leak()]));
    assert_eq!(ran.exit, 0, "{ran:?}");
    let statement = statement(&Digest::sha256(BYTES)).to_string();
    let content = Content::Dsse { payload_type: IN_TOTO, payload: statement.as_bytes() };
    let identity = files.sigstore.identity(&Names::default());
    let bundle = files.sigstore.sign(&content, Who::Identity(&identity));
    let ran = files.verify(&bundle, Some("root.json"), &with(&["file"]));
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stdout.contains("predicate https://sigstore.dev/cosign/sign/v1"), "{ran:?}");
}

/// T-12 and T-15 hold for flags, too.
#[test]
fn everything_else_is_refused() {
    let files = Files::new();
    let bundle = files.sign(&Names::default());
    let of_key = bundle_of(&Content::Message(BYTES), Who::Key(&KeyPair::generate().unwrap()));
    let root = Some("root.json");
    let name = |name, issuer| ["--certificate-identity", name, "--certificate-oidc-issuer", issuer, "file"];
    let right = ("someone@example.com", "https://issuer.example");
    for (ran, exit, code) in [
        (files.verify(&bundle, root, &with(&["other"])), 1, "bundle-subject"),
        (files.verify(&bundle, root, &name("else@example.com", right.1)), 1, "identity-mismatch-subject"),
        (files.verify(&bundle, root, &name("Someone@example.com", right.1)), 1, "identity-mismatch-subject"),
        (
            files.verify(&bundle, root, &name(right.0, "https://issuer.example/")),
            1,
            "identity-mismatch-issuer",
        ),
        // The public instance knows nothing of our logs.
        (files.verify(&bundle, None, &with(&["file"])), 1, "log-entry-invalid"),
        (files.verify(&bundle, Some("file"), &with(&["file"])), 4, "trusted-root-invalid"),
        (files.verify(&bundle, root, &with(&["absent"])), 3, "absent"),
        (files.verify(&bundle, root, &["--key", "absent", "file"]), 4, "key-file-unreadable"),
        (files.verify(&bundle, Some("absent"), &with(&["file"])), 4, "key-file-unreadable"),
        (files.verify(&of_key, root, &["--key", "other", "file"]), 4, "key-file-invalid"),
        (files.verify(&bundle, root, &["file"]), 2, "--key"),
        (
            files.verify(&bundle, root, &["--certificate-identity", "a", "file"]),
            2,
            "--certificate-oidc-issuer",
        ),
        (files.verify(&bundle, root, &with(&["--key", "other", "file"])), 2, "--key"),
        (files.verify(&bundle, root, &with(&["sha512:00"])), 3, "sha512:00"),
    ] {
        assert_eq!(ran.exit, exit, "{code}: {ran:?}");
        assert!(ran.stderr.contains(code) && ran.stdout.is_empty(), "{code}: {ran:?}");
    }
    let issuer = "https://token.actions.githubusercontent.com";
    let workflow = "https://github.com/acme/shared/.github/workflows/sign.yml@refs/heads/main";
    for (caller, exit) in [("https://github.com/acme/shared", 0), ("https://github.com/evil/os", 1)] {
        let extensions = [(8, issuer), (12, caller)].map(|(number, text)| (number, text.to_owned()));
        let names = Names { san: San::Uri(workflow), extensions: extensions.to_vec(), ..Names::default() };
        let ran = files.verify(&files.sign(&names), root, &name(workflow, issuer));
        assert_eq!(ran.exit, exit, "{ran:?}");
        assert_eq!(ran.stderr.contains("identity-foreign-caller"), exit == 1, "{ran:?}");
    }
}

/// A file that is called like the digest of something signed is not what was signed.
#[test]
fn no_file_passes_for_a_digest() {
    let files = Files::new();
    let bundle = files.sign(&Names::default());
    let name = Digest::sha256(BYTES).to_string();
    files.write(&name, b"something else");
    files.write("bundle.json", bundle.to_string());
    let run = |name: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_vouchd"))
            .args(["verify-blob", "--bundle", "bundle.json", "--trusted-root", "root.json"])
            .args(with(&["--"]))
            .arg(name)
            .current_dir(files.dir.path())
            .output()
            .unwrap();
        output.status.code()
    };
    assert_eq!(run(&name), Some(2));
    assert_eq!(run(&format!("./{name}")), Some(1));
    std::fs::remove_file(files.path(&name)).unwrap();
    assert_eq!(run(&name), Some(0));
}

/// T-14: a key alone needs no log, unless a trusted root is named.
#[test]
fn a_key_is_enough_where_no_root_is_named() {
    let files = Files::new();
    let key = KeyPair::generate().unwrap();
    files.write("key.pem", key.public_key_pem());
    let unlogged = bundle_of(&Content::Message(BYTES), Who::Key(&key));
    let logged = files.sigstore.sign_v2(&Content::Message(BYTES), Who::Key(&key));
    let by_key = ["--key", "key.pem", "file"];
    assert_eq!(files.verify(&unlogged, None, &by_key).exit, 0);
    let ran = files.verify(&unlogged, Some("root.json"), &by_key);
    assert!(ran.exit == 1 && ran.stderr.contains("log-entry-missing"), "{ran:?}");
    assert_eq!(files.verify(&logged, Some("root.json"), &by_key).exit, 0);
    let ran = files.verify(&files.sign(&Names::default()), None, &by_key);
    assert!(ran.exit == 1 && ran.stderr.contains("bundle-signer"), "{ran:?}");
    let ran = files.verify(&logged, Some("root.json"), &with(&["file"]));
    assert!(ran.exit == 1 && ran.stderr.contains("bundle-signer"), "{ran:?}");
    let stranger = KeyPair::generate().unwrap();
    files.write("key.pem", stranger.public_key_pem());
    let ran = files.verify(&unlogged, None, &by_key);
    assert!(ran.exit == 1 && ran.stderr.contains("bundle-signature"), "{ran:?}");
}
