//! policy.json → [`Policy`], with every problem that stands in its way (rules P-1 to P-53).

mod certificate;

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Severity, Span, closest, escape};
use crate::json::{self, Data, Limits, Value};
use crate::nonempty::NonEmpty;
use crate::reference::Named;

use super::identity::{Remap, is_prefix};
use super::{
    Entry, KeySource, KeyType, Pki, PkiSubject, Policy, Requirement, Requirements, SignedBy, SignedIdentity,
    Signer, SigstoreSigned, scope,
};

/// A valid policy nests seven levels, and the reference allows 10,000 (rule P-4). The administrator wrote it, so
/// that only its size limits how much it says.
pub const LIMITS: Limits = Limits { depth: 64, values: usize::MAX };

impl Policy {
    /// Reads a policy. On failure all problems are reported, causes before their consequences.
    pub fn parse(text: &[u8]) -> Result<Self, NonEmpty<Diagnostic>> {
        Self::parse_within(text, LIMITS.values)
    }

    /// As [`Policy::parse`] for a text that anybody may have written, with at most this number of JSON values.
    pub fn parse_within(text: &[u8], values: usize) -> Result<Self, NonEmpty<Diagnostic>> {
        let root = json::parse(text, Limits { values, ..LIMITS }).map_err(|error| {
            NonEmpty::one(Diagnostic {
                code: Code::InvalidJson,
                severity: Severity::Error,
                span: error.span,
                message: format!("the policy is not JSON: {}", error.reason),
                help: None,
            })
        })?;
        Self::of_json(&root, PROBLEMS)
    }

    /// As [`Policy::parse`] for what is JSON already; of more problems than `most` the first that are found are told.
    pub fn of_json(root: &Value<'_>, most: usize) -> Result<Self, NonEmpty<Diagnostic>> {
        let mut parser = Parser { problems: Vec::new(), most, is_full: false };
        let policy = parser.policy(root);
        // What is missing is often what was misspelt.
        let consequence = |code| matches!(code, Code::InvalidRequirement | Code::MissingKey);
        parser.problems.sort_by_key(|problem| (consequence(problem.code), problem.span.start));
        match (NonEmpty::from_vec(parser.problems), policy) {
            (None, Some(policy)) => Ok(policy),
            (Some(problems), _) => Err(problems),
            (None, None) => Err(NonEmpty::one(Diagnostic {
                code: Code::InternalError,
                severity: Severity::Error,
                span: root.span,
                message: "the policy was refused for a reason that was not recorded".to_owned(),
                help: Some("please report this policy as a bug of vouchd".to_owned()),
            })),
        }
    }
}

impl Requirement {
    /// The requirement in a part of a policy that may be faulty elsewhere; none if it is faulty itself.
    ///
    /// Only for advice about the text: no verdict may come of it, because a policy with problems is never used.
    pub fn of_json(value: &Value<'_>) -> Option<Self> {
        let mut parser = Parser { problems: Vec::new(), most: 1, is_full: false };
        let requirement = parser.requirement(value);
        requirement.filter(|_| parser.problems.is_empty())
    }
}

/// Collects problems. A reader that returns `None` has recorded why; one that returns something may have
/// recorded problems too, so that what stands deeper is read as well. A policy with problems is never used.
struct Parser {
    problems: Vec<Diagnostic>,
    /// How many are kept.
    most: usize,
    /// Whether there are more than are kept.
    is_full: bool,
}

/// Most problems that are told: 1,000, so that they never take much more room than the policy.
const PROBLEMS: usize = 1_000;

/// The members of a strict object, taken by name.
struct Object<'v, 'a> {
    span: Span,
    what: &'static str,
    members: Vec<(&'v str, &'v Value<'a>)>,
}

impl<'v, 'a> Object<'v, 'a> {
    fn member(&self, name: &str) -> Option<&'v Value<'a>> {
        self.members.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

impl Parser {
    fn problem(&mut self, code: Code, span: Span, message: String) {
        self.is_full |= self.problems.len() == self.most;
        if self.is_full {
            return;
        }
        self.problems.push(Diagnostic { code, severity: Severity::Error, span, message, help: None });
    }

    fn help(&mut self, help: String) {
        if let Some(last) = self.problems.last_mut().filter(|_| !self.is_full) {
            last.help = Some(help);
        }
    }

    /// Rules P-5 and P-6: an object with only `known` members, each at most once.
    fn object<'v, 'a>(
        &mut self,
        value: &'v Value<'a>,
        what: &'static str,
        known: &[&str],
    ) -> Option<Object<'v, 'a>> {
        let Some(members) = value.members() else {
            self.problem(Code::InvalidType, value.span, format!("{what} must be an object"));
            return None;
        };
        let mut object = Object { span: value.span, what, members: Vec::with_capacity(members.len()) };
        for member in members {
            let name: &str = &member.key;
            if !known.contains(&name) {
                self.problem(
                    Code::UnknownKey,
                    member.key_span,
                    format!("{what} has the unknown member \"{}\"", escape(name)),
                );
                self.help(match closest(name, known) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("the members are {}", list(known)),
                });
            } else if object.member(name).is_some() {
                self.problem(Code::DuplicateKey, member.key_span, format!("{what} has \"{name}\" twice"));
            } else {
                object.members.push((name, &member.value));
            }
        }
        Some(object)
    }

    fn policy(&mut self, root: &Value<'_>) -> Option<Policy> {
        let object = self.object(root, "the policy", &["default", "transports"])?;
        let transports = match object.member("transports") {
            None => Some(HashMap::new()),
            Some(value) => self.transports(value),
        };
        let default_span = root
            .members()
            .and_then(|members| members.iter().find(|m| m.key == "default"))
            .map_or(root.span, |member| member.key_span);
        let default = match object.member("default") {
            Some(value) => self.requirements(value),
            None => self.missing(&object, "default"),
        };
        Some(Policy::new(Entry { requirements: default?, span: default_span }, transports?))
    }

    fn missing<T>(&mut self, object: &Object<'_, '_>, name: &str) -> Option<T> {
        self.problem(
            Code::MissingKey,
            object.span,
            format!("{} must have the member \"{name}\"", object.what),
        );
        None
    }

    fn transports(&mut self, value: &Value<'_>) -> Option<HashMap<String, HashMap<String, Entry>>> {
        let Some(members) = value.members() else {
            self.problem(Code::InvalidType, value.span, "\"transports\" must be an object".to_owned());
            return None;
        };
        let mut transports = HashMap::with_capacity(members.len());
        let mut sound = true;
        for member in members {
            let scopes = self.scopes(&member.key, &member.value);
            sound &= scopes.is_some();
            match transports.entry(member.key.clone().into_owned()) {
                Slot::Vacant(slot) => {
                    slot.insert(scopes.unwrap_or_default());
                }
                Slot::Occupied(_) => {
                    let message = format!("\"transports\" has \"{}\" twice", escape(&member.key));
                    self.problem(Code::DuplicateKey, member.key_span, message);
                    sound = false;
                }
            }
        }
        sound.then_some(transports)
    }

    fn scopes(&mut self, transport: &str, value: &Value<'_>) -> Option<HashMap<String, Entry>> {
        let Some(members) = value.members() else {
            let message = format!("the scopes of \"{}\" must be an object", escape(transport));
            self.problem(Code::InvalidType, value.span, message);
            return None;
        };
        let mut scopes = HashMap::with_capacity(members.len());
        let mut sound = true;
        for member in members {
            if let Err(reason) = scope::check(transport, &member.key) {
                let message =
                    format!("\"{}\" is no scope of \"{}\": {reason}", escape(&member.key), escape(transport));
                self.problem(Code::InvalidScope, member.key_span, message);
                sound = false;
            }
            let requirements = self.requirements(&member.value);
            sound &= requirements.is_some();
            match (scopes.entry(member.key.clone().into_owned()), requirements) {
                (Slot::Vacant(slot), Some(requirements)) => {
                    slot.insert(Entry { requirements, span: member.key_span });
                }
                (Slot::Vacant(_), None) => {}
                (Slot::Occupied(_), _) => {
                    let message =
                        format!("\"{}\" has the scope \"{}\" twice", escape(transport), escape(&member.key));
                    self.problem(Code::DuplicateKey, member.key_span, message);
                    sound = false;
                }
            }
        }
        sound.then_some(scopes)
    }

    /// Rule P-9: an array with at least one requirement.
    fn requirements(&mut self, value: &Value<'_>) -> Option<Requirements> {
        let Some(elements) = value.elements() else {
            let message = "the requirements of a scope must be an array".to_owned();
            self.problem(Code::InvalidType, value.span, message);
            return None;
        };
        let parsed: Vec<_> = elements.iter().map(|element| self.requirement(element)).collect();
        let all = parsed.into_iter().collect::<Option<Vec<_>>>()?;
        let requirements = NonEmpty::from_vec(all).map(Requirements);
        if requirements.is_none() {
            let message = "the list of requirements is empty".to_owned();
            self.problem(Code::InvalidRequirement, value.span, message);
            self.help("write [{\"type\": \"reject\"}] to refuse every image of the scope".to_owned());
        }
        requirements
    }

    /// Rule P-10: the type decides which members there may be.
    fn requirement(&mut self, value: &Value<'_>) -> Option<Requirement> {
        const TYPES: &[&str] =
            &["insecureAcceptAnything", "reject", "signedBaseLayer", "signedBy", "sigstoreSigned"];
        match self.type_of(value, "a requirement", TYPES)? {
            "insecureAcceptAnything" => {
                self.object(value, "an insecureAcceptAnything requirement", &["type"])?;
                Some(Requirement::InsecureAcceptAnything)
            }
            "reject" => {
                self.object(value, "a reject requirement", &["type"])?;
                Some(Requirement::Reject)
            }
            "signedBaseLayer" => {
                let known = &["type", "baseLayerIdentity"];
                let object = self.object(value, "a signedBaseLayer requirement", known)?;
                match object.member("baseLayerIdentity") {
                    Some(identity) => self.identity(identity).map(Requirement::SignedBaseLayer),
                    None => self.missing(&object, "baseLayerIdentity"),
                }
            }
            "signedBy" => self.signed_by(value).map(Requirement::SignedBy),
            _ => self.sigstore_signed(value).map(Requirement::SigstoreSigned),
        }
    }

    /// The `type` member, which must be one of `known`.
    fn type_of(&mut self, value: &Value<'_>, what: &str, known: &[&'static str]) -> Option<&'static str> {
        let Some(members) = value.members() else {
            self.problem(Code::InvalidType, value.span, format!("{what} must be an object"));
            return None;
        };
        let Some(kind) = members.iter().find(|m| m.key == "type").map(|m| &m.value) else {
            self.problem(Code::MissingKey, value.span, format!("{what} must have the member \"type\""));
            return None;
        };
        let Some(text) = kind.text() else {
            self.problem(Code::InvalidType, kind.span, "\"type\" must be a string".to_owned());
            return None;
        };
        let found = known.iter().copied().find(|name| *name == text);
        if found.is_none() {
            self.problem(
                Code::UnknownType,
                kind.span,
                format!("{what} has the unknown type \"{}\"", escape(text)),
            );
            self.help(match closest(text, known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("the types are {}", list(known)),
            });
        }
        found
    }

    /// Rules P-22 to P-26.
    fn signed_by(&mut self, value: &Value<'_>) -> Option<SignedBy> {
        let known = &["type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"];
        let object = self.object(value, "a signedBy requirement", known)?;
        let key_type = match object.member("keyType") {
            Some(value) => self.key_type(value),
            None => self.missing(&object, "keyType"),
        };
        let sources: Vec<_> = ["keyPath", "keyPaths", "keyData"]
            .into_iter()
            .filter_map(|name| object.member(name).map(|value| (name, value)))
            .collect();
        let keys = match sources.as_slice() {
            [(name, value)] => self.signed_by_keys(name, value),
            [] | [_, _, ..] => self.not_one(object.span, object.what, &["keyPath", "keyPaths", "keyData"]),
        };
        let identity = self.signed_identity(&object);
        Some(SignedBy { key_type: key_type?, keys: keys?, identity: identity? })
    }

    fn key_type(&mut self, value: &Value<'_>) -> Option<KeyType> {
        let all =
            [KeyType::GpgKeys, KeyType::SignedByGpgKeys, KeyType::X509Certificates, KeyType::SignedByX509Cas];
        let found = value.text().and_then(|text| all.into_iter().find(|t| t.as_str() == text));
        if found.is_none() {
            self.problem(Code::InvalidValue, value.span, "\"keyType\" must be \"GPGKeys\"".to_owned());
        }
        found
    }

    /// Rule P-24.
    fn signed_by_keys(&mut self, name: &str, value: &Value<'_>) -> Option<KeySource> {
        if value.is_null() {
            self.problem(Code::InvalidValue, value.span, format!("\"{name}\" must not be null"));
            return None;
        }
        match name {
            "keyPath" => {
                let path = self.string(name, value)?;
                if path.is_empty() {
                    self.problem(Code::InvalidValue, value.span, "\"keyPath\" must not be empty".to_owned());
                    return None;
                }
                Some(KeySource::Path(path))
            }
            "keyPaths" => self.strings(name, value).map(KeySource::Paths),
            _ => self.bytes(name, value).map(KeySource::Data),
        }
    }

    fn not_one<T>(&mut self, span: Span, what: &str, names: &[&str]) -> Option<T> {
        let message = format!("{what} must have exactly one of {}", list(names));
        self.problem(Code::InvalidRequirement, span, message);
        None
    }

    /// Rules P-31 to P-37.
    fn sigstore_signed(&mut self, value: &Value<'_>) -> Option<SigstoreSigned> {
        let mut known = vec!["type", "fulcio", "keyless", "pki"];
        known.extend(KEYS.iter().chain(&REKOR).chain(&certificate::ROOT));
        known.extend(["signedIdentity", "messageSignature", "manifestAnnotations"]);
        let object = self.object(value, "a sigstoreSigned requirement", &known)?;
        let keys = self.effective_sources(&object, KEYS);
        let fulcio = object.member("fulcio").map(|value| self.fulcio(value));
        let keyless = object.member("keyless").map(|value| self.keyless(value));
        let pki = object.member("pki").map(|value| self.pki(value));
        let rekor = self.effective_sources(&object, REKOR);
        let root = self.trusted_root(&object);
        let identity = match (object.member("signedIdentity"), &keyless) {
            (None, Some(_)) => Some(SignedIdentity::MatchRepositoryOrUnnamed),
            (Some(_), _) | (None, None) => self.signed_identity(&object),
        };
        let message_signature = match object.member("messageSignature") {
            Some(value) => self.boolean("messageSignature", value),
            None => Some(false),
        };
        let manifest_annotations = self.annotations(&object);
        let (mut keys, mut rekor, root) = (keys?, rekor?, root?);
        if rekor.len() > 1 {
            let message = format!("{} must have at most one of the rekorPublicKey members", object.what);
            self.problem(Code::InvalidRequirement, object.span, message);
            return None;
        }
        let rekor = rekor.pop();
        let signer = match (keys.pop(), keys.is_empty(), fulcio, keyless, pki) {
            (Some(keys), true, None, None, None) => {
                self.no_trusted_root(&object).map(|()| Signer::Keys { keys, rekor })
            }
            (None, _, Some(fulcio), None, None) => {
                fulcio.and_then(|fulcio| self.fulcio_signer(&object, fulcio, rekor, root))
            }
            (None, _, None, Some(keyless), None) => {
                keyless.and_then(|keyless| self.keyless_signer(&object, keyless, root))
            }
            (None, _, None, None, Some(pki)) => match rekor {
                None => self.no_trusted_root(&object).and(pki).map(Signer::Pki),
                Some(_) => {
                    let message =
                        "a requirement with \"pki\" must not have a rekorPublicKey member".to_owned();
                    self.problem(Code::InvalidRequirement, object.span, message);
                    None
                }
            },
            (Some(_), ..) | (None, ..) => {
                let names = &["keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "keyless", "pki"];
                self.not_one(object.span, object.what, names)
            }
        };
        let signer = signer?;
        Some(SigstoreSigned {
            implies_attachments: matches!(signer, Signer::Certificate { .. }),
            signer,
            identity: identity?,
            message_signature: message_signature?,
            manifest_annotations: manifest_annotations?,
            signed_annotations: BTreeMap::new(),
            has_members_of_ours: ["messageSignature", "manifestAnnotations"]
                .iter()
                .any(|name| object.member(name).is_some()),
        })
    }

    /// Rules P-32 and P-33: empty paths and null data do not count, but lists must not be empty.
    ///
    /// The names are of a path, paths, data and datas, in this order.
    fn effective_sources(
        &mut self,
        object: &Object<'_, '_>,
        [path, paths, data, datas]: [&'static str; 4],
    ) -> Option<Vec<KeySource>> {
        let single = self.path_or_data(object, path, data);
        let mut sound = true;
        let mut sources = Vec::new();
        if let Some(value) = object.member(paths) {
            match self.strings(paths, value).filter(|_| self.not_empty_list(paths, value)) {
                Some(list) => sources.push(KeySource::Paths(list)),
                None => sound = false,
            }
        }
        if let Some(value) = object.member(datas) {
            match self.byte_strings(datas, value).filter(|_| self.not_empty_list(datas, value)) {
                Some(list) => sources.push(KeySource::Datas(list)),
                None => sound = false,
            }
        }
        sources.extend(single?);
        sound.then_some(sources)
    }

    fn not_empty_list(&mut self, name: &str, value: &Value<'_>) -> bool {
        let filled = value.elements().is_some_and(|elements| !elements.is_empty());
        if !filled {
            self.problem(Code::InvalidValue, value.span, format!("\"{name}\" must not be empty"));
        }
        filled
    }

    /// Rule P-39.
    fn pki(&mut self, value: &Value<'_>) -> Option<Pki> {
        let known = &[
            "caRootsPath",
            "caRootsData",
            "caIntermediatesPath",
            "caIntermediatesData",
            "subjectEmail",
            "subjectHostname",
        ];
        let object = self.object(value, "\"pki\"", known)?;
        let roots = self.path_or_data(&object, "caRootsPath", "caRootsData");
        let intermediates = self.path_or_data(&object, "caIntermediatesPath", "caIntermediatesData");
        let email = self.optional_string(&object, "subjectEmail");
        let hostname = self.optional_string(&object, "subjectHostname");
        let (mut roots, mut intermediates) = (roots?, intermediates?);
        let roots = match (roots.pop(), roots.is_empty()) {
            (Some(roots), true) => Some(roots),
            (Some(_), false) | (None, _) => {
                self.not_one(object.span, object.what, &["caRootsPath", "caRootsData"])
            }
        };
        if intermediates.len() > 1 {
            let message = "\"pki\" must have at most one of the caIntermediates members".to_owned();
            self.problem(Code::InvalidRequirement, object.span, message);
            return None;
        }
        let subject = match (email?, hostname?) {
            (email, hostname) if email.is_empty() && hostname.is_empty() => {
                let message = "\"pki\" must have \"subjectEmail\" or \"subjectHostname\"".to_owned();
                self.problem(Code::InvalidRequirement, object.span, message);
                None
            }
            (email, hostname) if hostname.is_empty() => Some(PkiSubject::Email(email)),
            (email, hostname) if email.is_empty() => Some(PkiSubject::Hostname(hostname)),
            (email, hostname) => Some(PkiSubject::Both { email, hostname }),
        };
        Some(Pki { roots: roots?, intermediates: intermediates.pop(), subject: subject? })
    }

    /// The effective ones of a path and a data member: an empty path and null data do not count.
    fn path_or_data(
        &mut self,
        object: &Object<'_, '_>,
        path: &'static str,
        data: &'static str,
    ) -> Option<Vec<KeySource>> {
        let mut sources = Vec::new();
        let mut sound = true;
        if let Some(value) = object.member(path) {
            match self.string(path, value) {
                Some(text) if text.is_empty() => {}
                Some(text) => sources.push(KeySource::Path(text)),
                None => sound = false,
            }
        }
        if let Some(value) = object.member(data).filter(|value| !value.is_null()) {
            match self.bytes(data, value) {
                Some(bytes) => sources.push(KeySource::Data(bytes)),
                None => sound = false,
            }
        }
        sound.then_some(sources)
    }

    fn filled_string(&mut self, object: &Object<'_, '_>, name: &'static str) -> Option<String> {
        let Some(value) = object.member(name) else { return self.missing(object, name) };
        let text = self.string(name, value)?;
        if text.is_empty() {
            self.problem(Code::InvalidValue, value.span, format!("\"{name}\" must not be empty"));
            return None;
        }
        Some(text)
    }

    fn optional_string(&mut self, object: &Object<'_, '_>, name: &'static str) -> Option<String> {
        match object.member(name) {
            Some(value) => self.string(name, value),
            None => Some(String::new()),
        }
    }

    /// Rule P-26: missing means matchRepoDigestOrExact.
    fn signed_identity(&mut self, object: &Object<'_, '_>) -> Option<SignedIdentity> {
        match object.member("signedIdentity") {
            Some(value) => self.identity(value),
            None => Some(SignedIdentity::MatchRepoDigestOrExact),
        }
    }

    /// Rules P-50 to P-53.
    fn identity(&mut self, value: &Value<'_>) -> Option<SignedIdentity> {
        const TYPES: &[&str] = &[
            "exactReference",
            "exactRepository",
            "matchExact",
            "matchRepoDigestOrExact",
            "matchRepository",
            "matchRepositoryOrUnnamed",
            "remapIdentity",
        ];
        match self.type_of(value, "a signed identity", TYPES)? {
            "matchExact" => {
                self.object(value, "a matchExact identity", &["type"]).map(|_| SignedIdentity::MatchExact)
            }
            "matchRepository" => self
                .object(value, "a matchRepository identity", &["type"])
                .map(|_| SignedIdentity::MatchRepository),
            "matchRepositoryOrUnnamed" => self
                .object(value, "a matchRepositoryOrUnnamed identity", &["type"])
                .map(|_| SignedIdentity::MatchRepositoryOrUnnamed),
            "matchRepoDigestOrExact" => self
                .object(value, "a matchRepoDigestOrExact identity", &["type"])
                .map(|_| SignedIdentity::MatchRepoDigestOrExact),
            "exactReference" => {
                let known = &["type", "dockerReference"];
                let object = self.object(value, "an exactReference identity", known)?;
                let named = self.name(&object, "dockerReference")?;
                if named.is_name_only() {
                    let message = "\"dockerReference\" must have a tag or a digest".to_owned();
                    self.problem(Code::InvalidIdentity, object.span, message);
                    return None;
                }
                Some(SignedIdentity::ExactReference(named))
            }
            "exactRepository" => {
                let known = &["type", "dockerRepository"];
                let object = self.object(value, "an exactRepository identity", known)?;
                self.name(&object, "dockerRepository").map(SignedIdentity::ExactRepository)
            }
            _ => {
                let known = &["type", "prefix", "signedPrefix"];
                let object = self.object(value, "a remapIdentity identity", known)?;
                let prefix = self.prefix(&object, "prefix");
                let signed_prefix = self.prefix(&object, "signedPrefix");
                Remap::new(&prefix?, &signed_prefix?).map(SignedIdentity::RemapIdentity)
            }
        }
    }

    fn name(&mut self, object: &Object<'_, '_>, member: &'static str) -> Option<Named> {
        let Some(value) = object.member(member) else { return self.missing(object, member) };
        let text = self.string(member, value)?;
        match Named::parse(&text) {
            Ok(named) => Some(named),
            Err(error) => {
                let message = format!("\"{member}\" is not an image name: {error}");
                self.problem(Code::InvalidIdentity, value.span, message);
                None
            }
        }
    }

    fn prefix(&mut self, object: &Object<'_, '_>, member: &'static str) -> Option<String> {
        let Some(value) = object.member(member) else { return self.missing(object, member) };
        let text = self.string(member, value)?;
        if !is_prefix(&text) {
            let message = format!("\"{member}\" must be HOST[:PORT] or HOST[:PORT]/REPOSITORY");
            self.problem(Code::InvalidPrefix, value.span, message);
            return None;
        }
        Some(text)
    }

    /// Rule P-12: null is the empty string.
    fn string(&mut self, name: &str, value: &Value<'_>) -> Option<String> {
        match &value.data {
            Data::String(text) => Some(text.clone().into_owned()),
            Data::Null => Some(String::new()),
            Data::Bool(_) | Data::Number(_) | Data::Array(_) | Data::Object(_) => {
                self.problem(Code::InvalidType, value.span, format!("\"{name}\" must be a string"));
                None
            }
        }
    }

    /// The elements of an array; null has none.
    fn list<'v, 'a>(&mut self, name: &str, value: &'v Value<'a>) -> Option<&'v [Value<'a>]> {
        let elements = if value.is_null() { Some(&[][..]) } else { value.elements() };
        if elements.is_none() {
            self.problem(Code::InvalidType, value.span, format!("\"{name}\" must be an array"));
        }
        elements
    }

    fn strings(&mut self, name: &str, value: &Value<'_>) -> Option<Vec<String>> {
        self.list(name, value)?.iter().map(|element| self.string(name, element)).collect()
    }

    fn byte_strings(&mut self, name: &str, value: &Value<'_>) -> Option<Vec<Arc<[u8]>>> {
        self.list(name, value)?.iter().map(|element| self.bytes(name, element)).collect()
    }

    /// Rule P-13.
    fn bytes(&mut self, name: &str, value: &Value<'_>) -> Option<Arc<[u8]>> {
        let bytes = value.bytes();
        if bytes.is_none() {
            let code = if value.text().is_some() { Code::InvalidBase64 } else { Code::InvalidType };
            self.problem(code, value.span, format!("\"{name}\" is not base64 with padding"));
        }
        bytes.map(Arc::from)
    }
}

/// Members of sigstoreSigned that give keys.
const KEYS: [&str; 4] = ["keyPath", "keyPaths", "keyData", "keyDatas"];

/// Members of sigstoreSigned that give the keys of logs.
const REKOR: [&str; 4] =
    ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"];

/// `"a", "b" and "c"`
fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(Code, usize, usize, Option<String>)> {
        let problems = Policy::parse(text.as_bytes()).unwrap_err();
        problems
            .iter()
            .map(|p| {
                let position = p.span.position(text.as_bytes());
                (p.code, position.line, position.column, p.help.clone())
            })
            .collect()
    }

    #[test]
    fn every_problem_is_found_and_placed() {
        let text = r#"{
  "default": [{"type": "rejekt"}],
  "transports": {
    "dir": {"tmp": [], "/a": [{"type": "signedBy", "keytype": "GPGKeys"}]},
    "docker": {"a": [{"type": "reject"}], "\u0061": [{"type": "reject"}]}
  }
}"#;
        let found = problems(text);
        let places: Vec<_> = found.iter().map(|(c, l, k, _)| (*c, *l, *k)).collect();
        assert_eq!(
            places,
            [
                (Code::UnknownType, 2, 24),
                (Code::InvalidScope, 4, 13),
                (Code::UnknownKey, 4, 52),
                (Code::DuplicateKey, 5, 43),
                (Code::InvalidRequirement, 4, 20),
                (Code::MissingKey, 4, 31),
                (Code::InvalidRequirement, 4, 31),
            ]
        );
        assert_eq!(found[0].3.as_deref(), Some("did you mean \"reject\"?"));
        assert_eq!(found[2].3.as_deref(), Some("did you mean \"keyType\"?"));
    }
}
