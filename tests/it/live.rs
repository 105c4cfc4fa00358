//! A real registry (Debian's docker-registry on loopback), and keys that sign for it.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use vouchd::digest::Digest;
use vouchd::manifest::{OCI_INDEX, OCI_MANIFEST};

use crate::support::{Ran, cosign, have, vouchd, write};

/// When keys are made.
pub(crate) const NOW: &str = "20260101T000000!";
const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
/// bcrypt of "secret".
const HTPASSWD: &str = "ci:$2b$05$Ge8hZpnmLrOwj.LuMfD6Yu79QS/uKDTmLKI5Rc87NfyT0dorklt0S\n";

/// A registry with TLS, and a directory for policies, keys and lookaside stores.
pub(crate) struct Registry {
    dir: TempDir,
    port: u16,
    process: Child,
    http: reqwest::Client,
    pub(crate) runtime: tokio::runtime::Runtime,
    protection: Protection,
}

/// How a registry is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Over plain HTTP.
    None,
    /// Over TLS.
    Tls,
    /// Over TLS, by the user "ci" with the password "secret".
    TlsAndPassword,
}

impl Registry {
    /// Starts it, unless it is not installed.
    pub(crate) fn start(protection: Protection) -> Option<Self> {
        if !have(&["docker-registry"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(authority, authority_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        write(path("certs/ca.crt"), issuer.pem());
        write(path("tls/leaf.pem"), leaf.pem());
        write(path("tls/key.pem"), key.serialize_pem());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = dir.path().display();
        let mut configuration = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\nhttp:\n  addr: 127.0.0.1:{port}\n"
        );
        if protection != Protection::None {
            configuration +=
                &format!("  tls:\n    certificate: {root}/tls/leaf.pem\n    key: {root}/tls/key.pem\n");
        }
        if protection == Protection::TlsAndPassword {
            let file = write(path("htpasswd"), HTPASSWD);
            configuration += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        }
        let file = write(path("registry.yml"), configuration);
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let certificate = reqwest::Certificate::from_pem(issuer.pem().as_bytes()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([certificate]).no_proxy().build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { dir, port, process, http, runtime, protection })
    }

    /// Nobody answers from now on.
    pub(crate) fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The same registry by its address, which has parts that wildcards can match.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn url(&self) -> String {
        let scheme = if self.protection == Protection::None { "http" } else { "https" };
        format!("{scheme}://{}", self.host())
    }

    /// The members of an auth.json file for this registry, by both its names.
    pub(crate) fn auth(&self, password: &str) -> Value {
        let auth = STANDARD.encode(format!("ci:{password}"));
        json!({ self.host(): { "auth": auth }, self.address(): { "auth": auth } })
    }

    fn put(&self, url: &str, media_type: &str, body: &[u8]) {
        let mut request = self.http.put(url).header("Content-Type", media_type).body(body.to_vec());
        if self.protection == Protection::TlsAndPassword {
            request = request.basic_auth("ci", Some("secret"));
        }
        let status = self.runtime.block_on(request.send()).unwrap().status();
        assert!(status.is_success(), "{url}: {status}");
    }

    fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let base = format!("{}/v2/{repository}/blobs/uploads/", self.url());
        let mut request = self.http.post(&base);
        if self.protection == Protection::TlsAndPassword {
            request = request.basic_auth("ci", Some("secret"));
        }
        let answer = self.runtime.block_on(request.send()).unwrap();
        let location = answer.headers()["Location"].to_str().unwrap().to_owned();
        let digest = Digest::sha256(bytes).to_string();
        let separator = if location.contains('?') { '&' } else { '?' };
        self.put(&format!("{location}{separator}digest={digest}"), "application/octet-stream", bytes);
        digest
    }

    pub(crate) fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        manifest: &Value,
    ) -> String {
        let bytes = manifest.to_string();
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.url());
        self.put(&url, media_type, bytes.as_bytes());
        Digest::sha256(bytes.as_bytes()).to_string()
    }

    /// The manifest of an image that differs from others by `label`; pushes its configuration.
    pub(crate) fn image(&self, repository: &str, label: &str) -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self.push_blob(repository, CONFIG),
                "size": CONFIG.len(),
            },
            "layers": [],
            "annotations": { "label": label },
        })
    }

    /// Pushes an image that differs from others by `label`; returns its digest. The tag `@` stands for none.
    pub(crate) fn push(&self, repository: &str, reference: &str, label: &str) -> String {
        let manifest = self.image(repository, label);
        let reference = match reference {
            "@" => Digest::sha256(manifest.to_string().as_bytes()).to_string(),
            tag => tag.to_owned(),
        };
        self.push_manifest(repository, &reference, OCI_MANIFEST, &manifest)
    }

    /// Pushes an index of one image for linux/amd64; returns the digests of the index and of the image.
    pub(crate) fn push_index(&self, repository: &str, reference: &str, label: &str) -> (String, String) {
        let instance = self.push(repository, "@", label);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [{
                "mediaType": OCI_MANIFEST, "digest": instance, "size": self.image(repository, label).to_string().len(),
                "platform": { "os": "linux", "architecture": "amd64" },
            }],
            "annotations": { "label": label },
        });
        // The registry checks that the instance exists, not its size.
        (self.push_manifest(repository, reference, OCI_INDEX, &index), instance)
    }

    /// Attaches cosign signatures to `digest` under its `.sig` tag.
    pub(crate) fn attach(&self, repository: &str, digest: &str, layers: &[(Vec<u8>, String)]) {
        let layers: Vec<Value> = layers
            .iter()
            .map(|(payload, signature)| {
                json!({
                    "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                    "digest": self.push_blob(repository, payload),
                    "size": payload.len(),
                    "annotations": { "dev.cosignproject.cosign/signature": signature },
                })
            })
            .collect();
        let config = self.push_blob(repository, b"{}");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
            "layers": layers,
        });
        self.push_manifest(repository, &format!("{}.sig", digest.replace(':', "-")), OCI_MANIFEST, &manifest);
    }

    /// Puts simple-signing signatures where the lookaside store `sigs` has them.
    pub(crate) fn store(&self, repository: &str, digest: &str, signatures: &[Vec<u8>]) {
        for (n, signature) in signatures.iter().enumerate() {
            let name = format!("sigs/{repository}@{}/signature-{}", digest.replace(':', "="), n + 1);
            write(self.path(&name), signature);
        }
    }

    /// Runs `vouchd verify --json` with `arguments` added.
    pub(crate) fn verify(&self, requirement: &Value, reference: &str, arguments: &[&str]) -> Ran {
        let policy = json!({ "default": [{ "type": "reject" }], "transports": { "docker": { self.host(): [requirement] } } });
        self.verify_policy(&policy, reference, arguments)
    }

    pub(crate) fn verify_policy(&self, policy: &Value, reference: &str, arguments: &[&str]) -> Ran {
        let file = write(self.path("policy.json"), policy.to_string());
        let lookaside = format!("file://{}", self.path("sigs").display());
        let attachments = json!({ "docker": { format!("{}/plain", self.host()): { "use-sigstore-attachments": false } },
            "default-docker": { "lookaside": lookaside, "use-sigstore-attachments": true } });
        // JSON is YAML.
        write(self.path("registries.d/test.yaml"), attachments.to_string());
        let (registries_d, certs) = (self.path("registries.d"), self.path("certs"));
        let mut all = vec![
            "verify",
            "--json",
            "--policy",
            file.to_str().unwrap(),
            "--registries-d",
            registries_d.to_str().unwrap(),
            "--cert-dir",
            certs.to_str().unwrap(),
            "--timeout",
            "30s",
        ];
        all.extend(arguments);
        let reference = format!("docker://{}/{reference}", self.host());
        all.push(&reference);
        vouchd(&all)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The requirement of a signature by the key in this file.
pub(crate) fn signed_by(key: &Path) -> Value {
    json!({ "type": "signedBy", "keyType": "GPGKeys", "keyPath": key })
}

/// A key for cosign signatures.
pub(crate) struct SigningKey(EcdsaKeyPair);

impl SigningKey {
    pub(crate) fn new() -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap())
    }

    pub(crate) fn sign(&self, reference: &str, digest: &str) -> (Vec<u8>, String) {
        self.sign_payload(cosign(reference, digest))
    }

    /// Signs anything; returns it with the signature.
    pub(crate) fn sign_payload(&self, payload: Vec<u8>) -> (Vec<u8>, String) {
        let signature = STANDARD.encode(self.0.sign(&SystemRandom::new(), &payload).unwrap());
        (payload, signature)
    }

    /// The requirement of a signature by this key.
    pub(crate) fn requirement(&self, identity: &Value) -> Value {
        json!({ "type": "sigstoreSigned", "keyData": STANDARD.encode(self.pem()), "signedIdentity": identity })
    }

    /// The public key.
    pub(crate) fn pem(&self) -> String {
        // RFC 5480: the SubjectPublicKeyInfo of a point on P-256.
        let mut spki = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00".to_vec();
        spki.extend_from_slice(self.0.public_key().as_ref());
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(spki))
    }
}
