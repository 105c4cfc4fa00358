//! What several modules need: skipping visibly, running the program, OpenPGP keys made by gpg.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Says why a test does not run. With `VOUCHD_TEST_ALL` nothing may be skipped.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("VOUCHD_TEST_ALL").is_none(), "this test must run: {reason}");
    say("skipped", reason);
}

/// Says why a test does not run that needs files of others, which are never part of a clone.
pub(crate) fn skip_without(files: &Path) {
    say("skipped", &format!("{} is not there", files.display()));
}

/// Says something about this test, even if it succeeds.
pub(crate) fn say(what: &str, text: &str) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    // eprintln! would be captured by the test harness.
    let _ = writeln!(std::io::stderr(), "{what} {name}: {text}");
}

/// Whether the program can be found.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Whether every program is installed; says so if not.
pub(crate) fn have(programs: &[&str]) -> bool {
    match programs.iter().find(|program| !is_installed(program)) {
        None => true,
        Some(missing) => {
            skip(&format!("{missing} is not installed"));
            false
        }
    }
}

/// What the program answered.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The only JSON object on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.stdout.trim()).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Exit code and stable code of the answer.
    pub(crate) fn code(&self) -> (i32, String) {
        (self.exit, self.json()["code"].as_str().unwrap_or("allowed").to_owned())
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            exit: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs the program with an environment of its own.
pub(crate) fn vouchd<S: AsRef<OsStr>>(arguments: &[S]) -> Ran {
    let ran = Ran::from(
        Command::new(env!("CARGO_BIN_EXE_vouchd"))
            .args(arguments)
            .env_clear()
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null())
            .output()
            .unwrap(),
    );
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    ran
}

/// A home of gpg with keys of its own.
pub(crate) struct Gpg {
    home: TempDir,
}

impl Gpg {
    pub(crate) fn new() -> Self {
        let home = tempfile::Builder::new().prefix("vg").tempdir_in("/tmp").unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self { home }
    }

    /// Runs gpg; `input` goes to its standard input.
    pub(crate) fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("gpg")
            .args(["--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""])
            .args(arguments)
            .env("GNUPGHOME", self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "gpg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a signing key that expires as `expiry` says, at the time `when`.
    pub(crate) fn key(&self, user: &str, expiry: &str, when: &str) {
        self.run(&["--faked-system-time", when, "--quick-gen-key", user, "ed25519", "sign", expiry], b"");
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn export(&self, user: &str) -> Vec<u8> {
        self.run(&["--export", user], b"")
    }

    /// Signs; `options` come before the command.
    pub(crate) fn sign(&self, user: &str, options: &[&str], payload: &[u8]) -> Vec<u8> {
        let mut arguments = options.to_vec();
        arguments.extend(["--local-user", user, "--sign"]);
        self.run(&arguments, payload)
    }

    /// Revokes with the certificate that gpg made together with the key.
    pub(crate) fn revoke(&self) {
        for entry in fs::read_dir(self.home.path().join("openpgp-revocs.d")).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            self.run(&["--import"], text.replace(":-----BEGIN", "-----BEGIN").as_bytes());
        }
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let kill = ["--kill", "all"];
        let _ = Command::new("gpgconf").args(kill).env("GNUPGHOME", self.home.path()).status();
    }
}

/// The payload of a simple-signing signature.
pub(crate) fn simple_signing(reference: &str, digest: &str) -> Vec<u8> {
    payload("atomic container signature", reference, digest)
}

/// The payload of a cosign signature.
pub(crate) fn cosign(reference: &str, digest: &str) -> Vec<u8> {
    payload("cosign container image signature", reference, digest)
}

fn payload(kind: &str, reference: &str, digest: &str) -> Vec<u8> {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"}},"optional":{{}}}}"#
    )
    .into_bytes()
}

/// Writes a file and the directories above it.
pub(crate) fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
    let path = path.as_ref().to_path_buf();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}
