//! The verdicts of the reference implementation (`tests/vectors/`), answered by the same code as the
//! `replay` example, and the deliberate differences (`tests/divergences.json`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde_json::{Value, json};

use vouchd::policy::{
    Fulcio, FulcioIdentity, FulcioSubject, KeySource, Pki, PkiSubject, Policy, Requirement, Scope,
    SignedIdentity, Signer,
};

#[path = "../replay.rs"]
#[allow(dead_code, reason = "its main function is that of the example")]
mod replay;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn load(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// One entry of divergences.json: a case, or a group that ends in `*`.
struct Divergence {
    case: String,
    reference: String,
    ours: String,
    used: bool,
}

fn divergences(set: &str) -> Vec<Divergence> {
    let all = load(&tests().join("divergences.json"));
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    all.as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["set"] == set)
        .map(|entry| {
            assert!(text(entry, "reason").len() > 20, "{entry}: give the reason");
            let ours = text(entry, "ours");
            assert!(
                !matches!(ours.as_str(), "accept" | "match"),
                "a false accept is never deliberate: {entry}"
            );
            Divergence { case: text(entry, "case"), reference: text(entry, "reference"), ours, used: false }
        })
        .collect()
}

/// The members that an answer must share with the case.
fn compared(set: &str) -> &'static [&'static str] {
    match set {
        "scope-match" => {
            &["matched", "matched_key_path", "transport", "identity", "namespaces", "docker_reference"]
        }
        "reference-normalize" => &["normalized", "with_default_tag", "canonical_form"],
        "registries-d" => {
            &["use_sigstore_attachments", "lookaside_read", "lookaside_write", "signature_urls"]
        }
        _ => &[],
    }
}

/// Answers every case of the set that `wanted` selects; returns the number that agreed.
fn run(set: &str, wanted: impl Fn(&str) -> bool) -> usize {
    let document = load(&tests().join(format!("vectors/{set}.json")));
    let answer = replay::answerer(set).unwrap();
    let mut divergences = divergences(set);
    let mut failures = Vec::new();
    let mut agreed = 0;
    for case in document["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        if !wanted(id) {
            continue;
        }
        let ours = answer(case).unwrap();
        let reference = match case["verdict"].as_str().unwrap() {
            "panic" => "reference-error",
            verdict => verdict,
        };
        let verdict = ours["verdict"].as_str().unwrap().to_owned();
        let known = divergences.iter_mut().find(|d| match d.case.strip_suffix('*') {
            Some(prefix) => id.starts_with(prefix) && verdict != reference && d.ours == verdict,
            None => d.case == id,
        });
        if let Some(known) = known {
            assert_eq!(
                (known.reference.as_str(), known.ours.as_str()),
                (reference, verdict.as_str()),
                "{id}: stale"
            );
            known.used = true;
            continue;
        }
        if verdict != reference {
            failures.push(format!("{id}: {reference} became {verdict} ({})", case["reference_error"]));
            continue;
        }
        agreed += 1;
        if !matches!(reference, "ok") {
            continue;
        }
        for name in compared(set) {
            let (mine, theirs) = (ours.get(*name).unwrap_or(&Value::Null), &case[*name]);
            let empty = |v: &Value| v.is_null() || v.as_array().is_some_and(Vec::is_empty);
            if mine != theirs && !(empty(mine) && empty(theirs)) {
                failures.push(format!("{id}: {name} is {mine} instead of {theirs}"));
            }
        }
        if set == "reference-normalize" {
            let theirs = case["docker_transport"].as_object().unwrap();
            for (name, theirs) in theirs.iter().filter(|(name, _)| *name != "reference_error") {
                if ours["docker_transport"].get(name) != Some(theirs) {
                    failures.push(format!(
                        "{id}: docker {name} is {} instead of {theirs}",
                        ours["docker_transport"]
                    ));
                }
            }
        }
    }
    for stale in divergences.iter().filter(|d| !d.used && wanted(d.case.trim_end_matches('*'))) {
        failures.push(format!("{}: this entry of divergences.json is stale", stale.case));
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    agreed
}

#[test]
fn policies_parse_as_in_the_reference() {
    assert!(run("policy-parse", |_| true) > 1_700);
}

#[test]
fn identities_match_as_in_the_reference() {
    assert_eq!(run("identity-match", |_| true), 859);
}

#[test]
fn references_are_read_as_in_the_reference() {
    assert!(run("reference-normalize", |_| true) > 250);
}

#[test]
fn scopes_match_as_in_the_reference() {
    let document = load(&tests().join("vectors/scope-match.json"));
    for fixture in document["fixture_paths"].as_array().unwrap() {
        let path = Path::new(fixture["path"].as_str().unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = match fixture["kind"].as_str().unwrap() {
            "dir" => std::fs::create_dir_all(path),
            "file" => std::fs::write(path, b""),
            _ => std::os::unix::fs::symlink(fixture["target"].as_str().unwrap(), path),
        };
        assert!(path.symlink_metadata().is_ok(), "{}", path.display());
    }
    assert!(run("scope-match", |_| true) > 500);
}

#[test]
fn signatures_are_judged_as_in_the_reference() {
    assert!(run("signature-verify", |_| true) > 600);
}

/// The parsed policy in the form that the vectors give: what was read must mean the same.
#[test]
fn parsed_policies_mean_what_they_mean_in_the_reference() {
    let document = load(&tests().join("vectors/policy-parse.json"));
    let mut compared = 0;
    for case in document["cases"].as_array().unwrap() {
        let bytes = vouchd::json::decode_base64(case["policy_b64"].as_str().unwrap()).unwrap();
        let (Ok(policy), false) = (Policy::parse(&bytes), case["normalized"].is_null()) else { continue };
        let mut default = Value::Null;
        let mut transports: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
        for matched in policy.scopes() {
            let list: Vec<Value> = matched.requirements.iter().map(normalized).collect();
            match matched.scope {
                Scope::Default => default = list.into(),
                Scope::Transport { transport, name } => {
                    transports.entry(transport).or_default().insert(name, list.into());
                }
            }
        }
        let mut theirs = case["normalized"].clone();
        // A transport without scopes has no effect, and we do not keep it.
        theirs["transports"].as_object_mut().unwrap().retain(|_, scopes| scopes != &json!({}));
        let theirs = expanded(&theirs);
        assert_eq!(json!({ "default": default, "transports": transports }), theirs, "{}", case["id"]);
        compared += 1;
    }
    assert!(compared > 350, "{compared}");
}

/// The vectors keep names as they were written, and null as null; we keep what they mean.
fn expanded(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            items.iter().map(|v| if v.is_null() { json!("") } else { expanded(v) }).collect()
        }
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match (name.as_str(), value.as_str()) {
                ("dockerReference" | "dockerRepository", Some(text)) => {
                    (name.clone(), vouchd::reference::Named::parse(text).unwrap().to_string().into())
                }
                _ => (name.clone(), expanded(value)),
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn normalized(requirement: &Requirement) -> Value {
    let mut members = json!({ "type": requirement.kind() });
    match requirement {
        Requirement::InsecureAcceptAnything | Requirement::Reject => {}
        Requirement::SignedBaseLayer(identity) => {
            members["baseLayerIdentity"] = normalized_identity(identity)
        }
        Requirement::SignedBy(signed_by) => {
            members["keyType"] = signed_by.key_type.as_str().into();
            members["signedIdentity"] = normalized_identity(&signed_by.identity);
            put(&mut members, "key", &signed_by.keys);
        }
        Requirement::SigstoreSigned(signed) => {
            members["signedIdentity"] = normalized_identity(&signed.identity);
            match &signed.signer {
                Signer::Keys { keys, rekor } => {
                    put(&mut members, "key", keys);
                    if let Some(rekor) = rekor {
                        put(&mut members, "rekorPublicKey", rekor);
                    }
                }
                Signer::Certificate { .. } => panic!("the reference has no such signer"),
                Signer::Fulcio { fulcio: Fulcio { ca, identity }, rekor } => {
                    let FulcioIdentity { oidc_issuer, subject: FulcioSubject::Email(subject_email) } =
                        identity
                    else {
                        panic!("the reference has no such members")
                    };
                    members["fulcio"] = json!({ "oidcIssuer": oidc_issuer, "subjectEmail": subject_email });
                    put(&mut members["fulcio"], "ca", ca);
                    put(&mut members, "rekorPublicKey", rekor);
                }
                Signer::Pki(Pki { roots, intermediates, subject }) => {
                    members["pki"] = match subject {
                        PkiSubject::Email(email) => json!({ "subjectEmail": email }),
                        PkiSubject::Hostname(name) => json!({ "subjectHostname": name }),
                        PkiSubject::Both { email, hostname } => {
                            json!({ "subjectEmail": email, "subjectHostname": hostname })
                        }
                    };
                    put(&mut members["pki"], "caRoots", roots);
                    if let Some(intermediates) = intermediates {
                        put(&mut members["pki"], "caIntermediates", intermediates);
                    }
                }
            }
        }
    }
    members
}

/// The vectors leave out what is present but empty.
fn put(members: &mut Value, prefix: &str, source: &KeySource) {
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let (name, value): (&str, Value) = match source {
        KeySource::Path(path) => ("Path", path.as_str().into()),
        KeySource::Paths(paths) => ("Paths", paths.as_slice().into()),
        KeySource::Data(data) => ("Data", encode(data).into()),
        KeySource::Datas(datas) => ("Datas", datas.iter().map(|d| encode(d)).collect()),
    };
    if value != json!("") && value != json!([]) {
        members[format!("{prefix}{name}")] = value;
    }
}

fn normalized_identity(identity: &SignedIdentity) -> Value {
    let mut members = json!({ "type": identity.kind() });
    match identity {
        SignedIdentity::MatchExact
        | SignedIdentity::MatchRepoDigestOrExact
        | SignedIdentity::MatchRepository
        | SignedIdentity::MatchRepositoryOrUnnamed => {}
        SignedIdentity::ExactReference(named) => members["dockerReference"] = named.to_string().into(),
        SignedIdentity::ExactRepository(named) => members["dockerRepository"] = named.to_string().into(),
        SignedIdentity::RemapIdentity(remap) => {
            members["prefix"] = remap.prefix().into();
            members["signedPrefix"] = remap.signed_prefix().into();
        }
    }
    members
}

#[test]
fn registries_d_is_read_as_in_the_reference() {
    assert_eq!(run("registries-d", |_| true), 116);
}
