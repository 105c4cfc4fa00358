//! Answers the cases of a vector set, one JSON object per line: `replay SET < cases > answers`.
//!
//! Everything goes through the public functions of the library that the program itself uses. What a case
//! says about the right answer is never looked at. Relative paths start from `/tmp/pv`.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use vouchd::config::{Directories, Environment, RegistriesD, User};
use vouchd::digest::Digest;
use vouchd::engine;
use vouchd::evaluate;
use vouchd::evaluate::evidence::{
    Evidence, InstanceEvidence, LocatedSignature, ManifestEvidence, Question, Subject,
};
use vouchd::evaluate::verdict::Decision;
use vouchd::fetch::local;
use vouchd::manifest::Platform;
use vouchd::policy::{Policy, Requirement, Scope, SignedIdentity};
use vouchd::reference::{Found, ImageName, ImageReference, Lookup, Named};
use vouchd::verify::trust::KeyMaterial;
use vouchd::verify::{UntrustedSignature, UntrustedSigstore};

fn main() -> ExitCode {
    let Some(answer) = std::env::args().nth(1).and_then(|set| answerer(&set)) else {
        eprintln!("usage: replay SET, where SET is a set of the vectors, such as policy-parse");
        return ExitCode::from(2);
    };
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let result = line.map_err(|e| e.to_string()).and_then(|line| {
            let case: Value = serde_json::from_str(&line).map_err(|e| e.to_string())?;
            let mut object = answer(&case)?;
            object.insert("id".to_owned(), case.get("id").cloned().unwrap_or_default());
            serde_json::to_string(&object).map_err(|e| e.to_string())
        });
        match result.and_then(|text| writeln!(out, "{text}").map_err(|e| e.to_string())) {
            Ok(()) => {}
            Err(error) => {
                eprintln!("replay: {error}");
                return ExitCode::from(3);
            }
        }
    }
    ExitCode::SUCCESS
}

/// What answers the cases of a set.
pub(crate) fn answerer(set: &str) -> Option<fn(&Value) -> Answer> {
    Some(match set {
        "identity-match" => identity_match,
        "policy-parse" => policy_parse,
        "reference-normalize" => reference_normalize,
        "registries-d" => registries_d,
        "scope-match" => scope_match,
        "signature-verify" => signature_verify,
        _ => return None,
    })
}

/// The answer to one case, without its id; an error means that the case itself cannot be read.
pub(crate) type Answer = Result<Map<String, Value>, String>;

fn object(value: Value) -> Answer {
    if let Value::Object(map) = value { Ok(map) } else { Err("not an object".to_owned()) }
}

fn text<'c>(case: &'c Value, name: &str) -> Result<&'c str, String> {
    case.get(name).and_then(Value::as_str).ok_or_else(|| format!("the case has no string \"{name}\""))
}

fn bytes(value: &Value, name: &str) -> Result<Vec<u8>, String> {
    vouchd::json::decode_base64(text(value, name)?).ok_or_else(|| format!("\"{name}\" is not base64"))
}

fn verdict(word: &str) -> Answer {
    object(json!({ "verdict": word }))
}

fn policy_parse(case: &Value) -> Answer {
    verdict(match Policy::parse(&bytes(case, "policy_b64")?) {
        Ok(_) => "ok",
        Err(_) => "error",
    })
}

/// Where relative paths in the cases start.
const WORK_DIRECTORY: &str = "/tmp/pv";

fn resolve(name: &str) -> Result<ImageReference, String> {
    let parsed = ImageName::parse(name).map_err(|e| e.to_string())?;
    local::resolve_in(Path::new(WORK_DIRECTORY), &Environment::system(), parsed).map_err(|e| e.to_string())
}

fn scope_match(case: &Value) -> Answer {
    let Ok(policy) = Policy::parse(text(case, "policy")?.as_bytes()) else { return verdict("policy-error") };
    let Ok(image) = resolve(text(case, "image")?) else { return verdict("reference-error") };
    let matched = policy.lookup(&image);
    let keys = matched.requirements.iter().find_map(|requirement| {
        let Requirement::SignedBy(signed_by) = requirement else { return None };
        signed_by.keys.paths().first()
    });
    object(json!({
        "verdict": "ok",
        "matched": match &matched.scope {
            Scope::Default => json!({ "default": true }),
            Scope::Transport { transport, name } => json!({ "transport": transport, "scope": name }),
        },
        "matched_key_path": keys,
        "transport": image.transport().name(),
        "identity": image.policy_identity(),
        "namespaces": image.policy_namespaces(),
        "docker_reference": image.docker_reference().map(ToString::to_string),
    }))
}

fn named(named: &Named) -> Value {
    json!({
        "string": named.to_string(),
        "name": named.name(),
        "domain": named.domain(),
        "path": named.path(),
        "familiar": named.familiar(),
        "tag": named.tag(),
        "digest": named.digest().map(ToString::to_string),
        "name_only": named.is_name_only(),
    })
}

fn reference_normalize(case: &Value) -> Answer {
    let input = text(case, "input")?;
    let docker = match resolve(&format!("docker://{input}")) {
        Err(_) => json!({ "verdict": "error" }),
        Ok(image) => json!({
            "verdict": "ok",
            "docker_reference": image.docker_reference().map(ToString::to_string),
            "string_within_transport":
                image.docker_reference().map(|n| format!("//{}", n.familiar())),
            "policy_identity": image.policy_identity(),
            "policy_namespaces": image.policy_namespaces(),
        }),
    };
    let parsed = Named::parse(input).ok();
    object(json!({
        "verdict": if parsed.is_some() { "ok" } else { "error" },
        "normalized": parsed.as_ref().map(named),
        "with_default_tag": parsed.clone().map(|n| named(&n.with_default_tag())),
        "canonical_form": Named::parse_canonical(input).is_some(),
        "docker_transport": docker,
    }))
}

fn identity_match(case: &Value) -> Answer {
    // A signed identity is parsed where it stands in a policy.
    let mut requirement = json!({ "type": "sigstoreSigned", "keyData": "" });
    if let (Some(identity), Some(object)) =
        (case.get("signed_identity").filter(|v| !v.is_null()), requirement.as_object_mut())
    {
        object.insert("signedIdentity".to_owned(), identity.clone());
    }
    let Some(identity) = identity_of(&json!({ "default": [requirement] })) else {
        return verdict("policy-error");
    };
    let image = match case.get("image_reference").and_then(Value::as_str) {
        Some(image) => Some(Named::parse(image).map_err(|e| e.to_string())?),
        None => None,
    };
    let accepted = identity.accepts(image.as_ref(), text(case, "signed_reference")?);
    verdict(if accepted { "match" } else { "no-match" })
}

fn identity_of(policy: &Value) -> Option<SignedIdentity> {
    let policy = Policy::parse(policy.to_string().as_bytes()).ok()?;
    policy.scopes().first()?.requirements.iter().find_map(|requirement| {
        let Requirement::SigstoreSigned(signed) = requirement else { return None };
        Some(signed.identity.clone())
    })
}

/// Writes the tree of a case below a directory of its own.
fn write_tree(root: &Path, files: &[Value]) -> Result<(), String> {
    let io = |e: std::io::Error| e.to_string();
    for file in files {
        let path = root.join(text(file, "path")?);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        match text(file, "kind")? {
            "dir" => std::fs::create_dir_all(&path).map_err(io)?,
            "symlink" => std::os::unix::fs::symlink(text(file, "target")?, &path).map_err(io)?,
            _ => std::fs::write(&path, text(file, "content")?).map_err(io)?,
        }
    }
    Ok(())
}

fn registries_d(case: &Value) -> Answer {
    let temporary = Temporary::new()?;
    let root = &temporary.0;
    write_tree(root, case.get("files").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default())?;
    let home = root.join("home");
    let user = User::at_home(home);
    let environment = Environment { root: root.join("root"), uid: 0, user: Some(user) };
    let directories = match text(case, "layout")? {
        "dir" => Directories::explicit(root.join("registries.d"), &environment),
        _ => Directories::search(&environment),
    };
    let Ok(registries_d) = RegistriesD::load(&directories) else { return verdict("error") };
    let image = Named::parse(text(case, "image_reference")?).map_err(|e| e.to_string())?.with_default_tag();
    let digest = case.get("manifest_digest").and_then(Value::as_str).and_then(Digest::parse);
    let relative = |url: String| url.replace(&root.to_string_lossy().into_owned(), "$TMP");
    let base = registries_d.lookaside_read(&image).ok();
    let urls = match (&base, &digest) {
        (Some(base), Some(digest)) => {
            Some([1, 2].map(|n| relative(base.signature(digest, n).with_credentials())))
        }
        _ => None,
    };
    object(json!({
        "verdict": "ok",
        "use_sigstore_attachments": registries_d.use_attachments(&image),
        "lookaside_read": base.map(|url| relative(url.with_credentials())),
        "lookaside_write":
            registries_d.lookaside_write(&image).ok().map(|url| relative(url.with_credentials())),
        "signature_urls": urls,
    }))
}

/// A directory that goes when it is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Self, String> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vouchd-replay-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| e.to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn signature_verify(case: &Value) -> Answer {
    let Ok(policy) = Policy::parse(text(case, "policy")?.as_bytes()) else { return verdict("reject") };
    let name = text(case, "image")?;
    let Ok(image) = resolve_case_image(name) else { return verdict("reject") };
    let question = Question {
        require_signature: case.get("require_signatures").and_then(Value::as_bool).unwrap_or(false),
        subject: Subject::Either,
        platform: Platform::host(),
    };
    let plan = evaluate::plan(&policy, &image, &question);
    let manifest = ManifestEvidence {
        signatures: signatures(case)?,
        ..ManifestEvidence::new(
            bytes(case, "manifest_b64")?,
            text(case, "manifest_mime_type").unwrap_or_default().to_owned(),
        )
    };
    let mut evidence = Evidence { key_files: BTreeMap::new(), ..Evidence::default() };
    let files = case.get("files").and_then(Value::as_object).cloned().unwrap_or_default();
    for path in plan.needs().key_files {
        // The files of the case stand for the file system; one that is missing leaves nothing decided.
        let Some(content) = files.get(&path).and_then(Value::as_str) else { return verdict("reject") };
        let content = vouchd::json::decode_base64(content).ok_or("a file is not base64")?;
        evidence.key_files.insert(path.clone(), Arc::new(KeyMaterial::new(format!("\"{path}\""), content)));
    }
    match case.get("instance_digest").and_then(Value::as_str) {
        None => evidence.top_level = Some(manifest),
        Some(digest) => {
            let Some(digest) = Digest::parse(digest) else { return verdict("reject") };
            evidence.instance = Some(InstanceEvidence { digest, manifest });
        }
    }
    verdict(match plan.judge(&evidence, engine::now()).decision {
        Decision::Allow(_) => "accept",
        Decision::Deny(_) => "reject",
    })
}

/// A few images are directories below `/tmp/pv` that need not exist for the question.
fn resolve_case_image(name: &str) -> Result<ImageReference, String> {
    let parsed = ImageName::parse(name).map_err(|e| e.to_string())?;
    let Lookup::Path(path) = parsed.lookup() else { return resolve(name) };
    let found = Found::Path(path.to_owned());
    parsed.into_reference(found).ok_or_else(|| "the image cannot be resolved".to_owned())
}

fn signatures(case: &Value) -> Result<Vec<LocatedSignature>, String> {
    let all = case.get("signatures").and_then(Value::as_array).ok_or("the case has no signatures")?;
    let mut signatures = Vec::with_capacity(all.len());
    for (n, signature) in all.iter().enumerate() {
        let untrusted = match text(signature, "format")? {
            "simple-signing" => UntrustedSignature::SimpleSigning(bytes(signature, "blob_b64")?),
            _ => UntrustedSignature::Sigstore(UntrustedSigstore {
                mime_type: text(signature, "mime_type")?.to_owned(),
                payload: bytes(signature, "payload_b64")?,
                annotations: signature
                    .get("annotations")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten()
                    .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                    .collect(),
            }),
        };
        signatures.push(LocatedSignature { location: format!("signature-{}", n + 1), signature: untrusted });
    }
    Ok(signatures)
}
