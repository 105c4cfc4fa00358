//! `vouchd verify-blob`

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{Environment, RegularFile};
use crate::diagnostic::Code;
use crate::digest::Digest;
use crate::engine;
use crate::evaluate::identity;
use crate::fetch::host_root::HostRoots;
use crate::fetch::{self, KEY_FILE_BYTES};
use crate::policy::certificate::{CertificateIdentity, Keyless, KeylessSubject};
use crate::verify::bundle::{self, Artifact, BUNDLE_BYTES, BundleClaim, Lacking, Trust};
use crate::verify::trust::KeyMaterial;
use crate::verify::trusted_root::{TRUSTED_ROOT_BYTES, TrustedRoot, TrustedRootError, stale_warning};
use crate::verify::{Rejection, Signer};

use super::{Exit, print};

/// Verify a file with a Sigstore bundle, offline and without a policy
#[derive(Args, Debug)]
pub(super) struct VerifyBlob {
    /// The file, or its digest as sha256:HEX
    #[arg(value_name = "FILE|sha256:HEX")]
    artifact: String,

    /// The Sigstore bundle
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,

    /// The signer's public key, as PEM
    #[arg(long, value_name = "FILE", conflicts_with_all = ["certificate_identity", "certificate_oidc_issuer"])]
    #[arg(required_unless_present = "certificate_identity")]
    key: Option<PathBuf>,

    /// The name in the signer's certificate, exactly
    #[arg(long, value_name = "NAME", requires = "certificate_oidc_issuer")]
    certificate_identity: Option<String>,

    /// Who vouched for that name, exactly
    #[arg(long, value_name = "URL", requires = "certificate_identity")]
    certificate_oidc_issuer: Option<String>,

    /// Use this trusted root in place of this host's; with --key, require an
    /// entry in one of its logs
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
}

/// Whose signature counts.
enum Wanted {
    Certificate(Box<CertificateIdentity>),
    Key(Box<KeyMaterial>),
}

/// Why nothing was verified.
enum Failure {
    /// The command line can be read in two ways.
    Ambiguous(String),
    /// Something that the command line names cannot be read.
    Unreadable { path: PathBuf, error: io::Error },
    /// What the caller trusts cannot be used, and what can be done about it.
    Unusable(String, &'static str),
    /// The signature does not count.
    Rejected(Rejection),
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        if rejection.code() == Code::KeyFileInvalid {
            Self::Unusable(format!("{rejection} [{}]", rejection.code()), rejection.help())
        } else {
            Self::Rejected(rejection)
        }
    }
}

pub(super) fn run(command: VerifyBlob) -> Exit {
    let name = command.artifact.clone();
    match verify(command) {
        Ok((digest, signer, claim, warning)) => {
            print::blob(&name, &digest, &signer, &claim, warning.as_deref())
        }
        Err(Failure::Rejected(rejection)) => {
            print::failure(&format!("{name}: not verified: {rejection} [{}]", rejection.code()));
            print::help(rejection.help());
            Exit::Denied
        }
        Err(Failure::Unreadable { path, error }) => {
            print::failure(&format!("{}: {error}", path.display()));
            Exit::Undecided
        }
        Err(Failure::Ambiguous(message)) => {
            print::failure(&message);
            Exit::Usage
        }
        Err(Failure::Unusable(message, help)) => {
            print::failure(&message);
            print::help(help);
            Exit::Configuration
        }
    }
}

/// What was verified, and what to know besides.
type Verified = (Digest, Signer, BundleClaim, Option<String>);

fn verify(command: VerifyBlob) -> Result<Verified, Failure> {
    let wanted = match (command.key, command.certificate_identity, command.certificate_oidc_issuer) {
        (Some(path), None, None) => {
            let bytes = read_trusted(&path, KEY_FILE_BYTES)?;
            Wanted::Key(Box::new(KeyMaterial::new(format!("\"{}\"", path.display()), bytes)))
        }
        (None, Some(subject), Some(issuer)) => {
            let subject = KeylessSubject::Identity(subject);
            Wanted::Certificate(Box::new(CertificateIdentity::Keyless(Keyless { issuer, subject })))
        }
        _ => {
            let message = "--key, or a name and an issuer, must say who signs";
            return Err(Failure::Ambiguous(message.to_owned()));
        }
    };
    let root = match &command.trusted_root {
        Some(path) => {
            let root = TrustedRoot::parse(&read_trusted(path, TRUSTED_ROOT_BYTES)?);
            let message = |e: &TrustedRootError| format!("{}: {e} [{}]", path.display(), e.code());
            Some(root.map_err(|e| Failure::Unusable(message(&e), e.help()))?)
        }
        None => None,
    };
    let bundle = read(&command.bundle, BUNDLE_BYTES)?;
    let is_file = Path::new(&command.artifact).symlink_metadata().is_ok();
    let (bytes, digest) = match Digest::parse(&command.artifact) {
        // Whoever names a file must not be told of another one.
        Some(_) if is_file => {
            let message = "is a file, and would be taken for a digest; write ./ in front of the name, or leave the directory";
            return Err(Failure::Ambiguous(format!("{} {message}", command.artifact)));
        }
        Some(digest) => (None, digest),
        None => read_artifact(Path::new(&command.artifact))?,
    };
    let artifact = match &bytes {
        Some(bytes) => Artifact::Bytes(bytes),
        None => Artifact::Sha256(&digest),
    };
    let mut warning = None;
    let (claim, identity) = match &wanted {
        Wanted::Certificate(identity) => {
            let host;
            // T-14: what a root lacks is waived only if it was named.
            let (root, lacking) = match &root {
                Some(root) => (root, Lacking::Waived),
                None => {
                    let roots = HostRoots::new(Environment::from_process(false));
                    let unusable =
                        |e: fetch::Error| Failure::Unusable(format!("{e} [{}]", e.code()), e.help());
                    host = roots.load().map_err(unusable)?;
                    warning = stale_warning(&host.source, host.current_until, engine::now());
                    (&host.root, Lacking::Refused)
                }
            };
            (
                bundle::verify_blob(&bundle, artifact, Trust::Certificates { root, lacking })?,
                Some(identity.as_ref()),
            )
        }
        Wanted::Key(key) => {
            let trust = Trust::Keys { keys: &[key], root: root.as_ref() };
            (bundle::verify_blob(&bundle, artifact, trust)?, None)
        }
    };
    let signer = identity::check_bundle_signer(&claim, identity)?;
    Ok((digest, signer, claim.get().clone(), warning))
}

/// The bytes, unless there are too many to hold, and their digest.
fn read_artifact(path: &Path) -> Result<(Option<Vec<u8>>, Digest), Failure> {
    let unreadable = |error| Failure::Unreadable { path: path.to_owned(), error };
    let file = RegularFile::open(path).map_err(unreadable)?;
    if file.metadata().len() > HELD {
        return Ok((None, Digest::sha256_of(file.into_file()).map_err(unreadable)?));
    }
    // It may have grown since.
    let bytes = file.read(usize::try_from(HELD).unwrap_or(usize::MAX)).map_err(unreadable)?;
    let digest = Digest::sha256(&bytes);
    Ok((Some(bytes), digest))
}

/// What the caller trusts.
fn read_trusted(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let bytes = RegularFile::open(path).and_then(|file| file.read(limit));
    bytes.map_err(|error| {
        let message = format!("cannot read \"{}\": {error} [{}]", path.display(), Code::KeyFileUnreadable);
        Failure::Unusable(message, "name a file that can be read")
    })
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let bytes = RegularFile::open(path).and_then(|file| file.read(limit));
    bytes.map_err(|error| Failure::Unreadable { path: path.to_owned(), error })
}

/// Largest artifact that is held in memory: 64 MiB. Of larger ones only the digest is known, which is enough for keys
/// that sign SHA-256.
const HELD: u64 = 64 << 20;
