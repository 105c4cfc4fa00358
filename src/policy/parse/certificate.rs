//! `fulcio`, `keyless` and trusted roots (rules P-35, P-38; T-13, T-15, T-31).

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Span, escape};
use crate::json::{Data, Value};
use crate::nonempty::NonEmpty;
use crate::policy::certificate::{
    CertificateIdentity, Field, Forge, Fulcio, FulcioIdentity, FulcioSubject, Keyless, KeylessSubject,
    MaxAge, Pin, Pins, Refs, Repository, Reusable, RootSource, TrustedRoot, Wanted, Workflows,
};
use crate::policy::pattern::{Glob, Pattern};
use crate::policy::{KeySource, Signer};

use super::{Object, Parser, list};

/// Members about the trusted root, beside `fulcio` and `keyless`.
pub(super) const ROOT: [&str; 3] = ["trustedRootPath", "trustedRootData", "trustedRootMaxAge"];

/// Members of `keyless` that mean something only for a repository.
const OF_REPOSITORIES: [&str; 6] =
    ["refs", "workflows", "triggers", "allowReusableWorkflow", "runnerEnvironment", "repositoryId"];

/// What `fulcio` says; whether it may have an authority depends on what stands beside it.
pub(super) struct FulcioMembers {
    span: Span,
    what: &'static str,
    /// Effective ones, as in rule P-32.
    ca: Vec<KeySource>,
    /// The first of the members about an authority, effective or not.
    ca_span: Option<Span>,
    identity: FulcioIdentity,
}

impl Parser {
    /// Rule P-38, and the members of ours.
    pub(super) fn fulcio(&mut self, value: &Value<'_>) -> Option<FulcioMembers> {
        let mut known = vec!["caPath", "caData", "oidcIssuer", "subjectEmail"];
        for field in Field::OURS {
            known.push(field.name());
            known.extend(field.pattern_name());
        }
        let object = self.object(value, "\"fulcio\"", &known)?;
        let ca = self.path_or_data(&object, "caPath", "caData");
        let ca_span = ["caPath", "caData"].iter().find_map(|name| object.member(name)).map(|v| v.span);
        let oidc_issuer = self.filled_string(&object, "oidcIssuer");
        let subject = self.fulcio_subject(&object);
        let identity = FulcioIdentity { oidc_issuer: oidc_issuer?, subject: subject? };
        Some(FulcioMembers { span: object.span, what: object.what, ca: ca?, ca_span, identity })
    }

    fn fulcio_subject(&mut self, object: &Object<'_, '_>) -> Option<FulcioSubject> {
        let email = match object.member("subjectEmail") {
            Some(_) => Some(self.filled_string(object, "subjectEmail")?),
            None => None,
        };
        let mut pins = Vec::new();
        for field in Field::OURS {
            if object.member(field.name()).is_some() {
                let wanted = self.filled_string(object, field.name()).map(Wanted::Exact);
                pins.push(wanted.map(|wanted| Pin { field, wanted }));
            }
            if let Some((name, value)) = field.pattern_name().and_then(|n| object.member(n).map(|v| (n, v))) {
                let wanted = self.pattern(object, name, value).map(Wanted::Pattern);
                pins.push(wanted.map(|wanted| Pin { field, wanted }));
            }
        }
        let mut pins = pins.into_iter().collect::<Option<Vec<_>>>()?;
        if let (Some(email), true) = (&email, pins.is_empty()) {
            return Some(FulcioSubject::Email(email.clone()));
        }
        pins.extend(email.map(|email| Pin { field: Field::SubjectEmail, wanted: Wanted::Exact(email) }));
        let pins = Pins::new(pins);
        if pins.is_none() {
            let message = format!(
                "{} must have the member \"subjectEmail\", or another that names a signer",
                object.what
            );
            self.problem(Code::MissingKey, object.span, message);
            let names = Field::OURS.iter().filter(|field| field.names_somebody());
            self.help(format!("others are {}", list(&names.map(|field| field.name()).collect::<Vec<_>>())));
        }
        pins.map(FulcioSubject::Pins)
    }

    fn pattern(&mut self, object: &Object<'_, '_>, name: &'static str, value: &Value<'_>) -> Option<Pattern> {
        let text = self.filled_string(object, name)?;
        match Pattern::new(&text) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let message =
                    format!("\"{name}\" is no usable regular expression: {}", escape(&error.to_string()));
                self.problem(Code::InvalidPattern, value.span, message);
                None
            }
        }
    }

    /// `fulcio` with what stands beside it: its own authority and log (rule P-35), or a trusted root; never both (T-15).
    pub(super) fn fulcio_signer(
        &mut self,
        requirement: &Object<'_, '_>,
        members: FulcioMembers,
        rekor: Option<KeySource>,
        root: TrustedRoot,
    ) -> Option<Signer> {
        let FulcioMembers { span, what, mut ca, ca_span, identity } = members;
        if root.source != RootSource::Host {
            return match ca_span.or_else(|| rekor_span(requirement)) {
                None => Some(Signer::Certificate {
                    identity: Box::new(CertificateIdentity::Fulcio(identity)),
                    root,
                }),
                Some(span) => {
                    let message = "a trusted root already has the authorities and logs: it excludes ca and rekorPublicKey members";
                    self.problem(Code::InvalidRequirement, span, message.to_owned());
                    self.help("keep either \"trustedRoot…\", or \"ca…\" with \"rekorPublicKey…\"".to_owned());
                    None
                }
            };
        }
        let ca = match (ca.pop(), ca.is_empty()) {
            (Some(ca), true) => Some(ca),
            (Some(_), false) | (None, _) => {
                let none = self.not_one(span, what, &["caPath", "caData"]);
                self.help("or put \"trustedRootPath\" or \"trustedRootData\" beside \"fulcio\"".to_owned());
                none
            }
        };
        if let Some(value) = requirement.member("trustedRootMaxAge") {
            let message =
                "\"trustedRootMaxAge\" is about a trusted root, and this requirement has none".to_owned();
            self.problem(Code::InvalidRequirement, value.span, message);
            return None;
        }
        let Some(rekor) = rekor else {
            let message = "a requirement with \"fulcio\" must have a rekorPublicKey member".to_owned();
            self.problem(Code::InvalidRequirement, requirement.span, message);
            return None;
        };
        Some(Signer::Fulcio { fulcio: Fulcio { ca: ca?, identity }, rekor })
    }

    /// `keyless` with what stands beside it.
    pub(super) fn keyless_signer(
        &mut self,
        requirement: &Object<'_, '_>,
        keyless: Keyless,
        root: TrustedRoot,
    ) -> Option<Signer> {
        if let Some(span) = rekor_span(requirement) {
            let message =
                "\"keyless\" is judged with a trusted root, which excludes rekorPublicKey members".to_owned();
            self.problem(Code::InvalidRequirement, span, message);
            return None;
        }
        Some(Signer::Certificate { identity: Box::new(CertificateIdentity::Keyless(keyless)), root })
    }

    /// The members of [`ROOT`].
    pub(super) fn trusted_root(&mut self, object: &Object<'_, '_>) -> Option<TrustedRoot> {
        let [path, data, max_age] = ROOT;
        let source = match (object.member(path), object.member(data)) {
            (None, None) => Some(RootSource::Host),
            (Some(_), None) => self.filled_string(object, path).map(RootSource::Path),
            (None, Some(value)) => match self.bytes(data, value) {
                Some(bytes) if bytes.is_empty() => {
                    self.problem(Code::InvalidValue, value.span, format!("\"{data}\" must not be empty"));
                    None
                }
                bytes => bytes.map(RootSource::Data),
            },
            (Some(_), Some(_)) => {
                let message = format!("{} must have at most one of \"{path}\" and \"{data}\"", object.what);
                self.problem(Code::InvalidRequirement, object.span, message);
                None
            }
        };
        let max_age = match object.member(max_age) {
            None => Some(MaxAge::Unlimited),
            Some(value) => {
                let age = self.filled_string(object, max_age)?;
                let parsed = MaxAge::parse(&age);
                if parsed.is_none() {
                    let message = format!("\"{max_age}\" must be a number of hours or days, such as \"30d\"");
                    self.problem(Code::InvalidValue, value.span, message);
                }
                parsed
            }
        };
        let (source, max_age) = (source?, max_age?);
        if let (RootSource::Data(_), MaxAge::Seconds(_), Some(value)) =
            (&source, max_age, object.member(ROOT[2]))
        {
            let message = "a trusted root that stands in the policy has no age";
            self.problem(Code::InvalidRequirement, value.span, message.to_owned());
            self.help("put it into a file, and name that with \"trustedRootPath\"".to_owned());
            return None;
        }
        Some(TrustedRoot { source, max_age })
    }

    /// Refuses what belongs to `fulcio` and `keyless` beside another kind of signer.
    pub(super) fn no_trusted_root(&mut self, object: &Object<'_, '_>) -> Option<()> {
        let Some((name, value)) = ROOT.iter().find_map(|name| object.member(name).map(|value| (name, value)))
        else {
            return Some(());
        };
        let message = format!("\"{name}\" is allowed only with \"fulcio\" or \"keyless\"");
        self.problem(Code::InvalidRequirement, value.span, message);
        None
    }

    /// `keyless`: whether it means an identity or a repository depends on its own strings.
    pub(super) fn keyless(&mut self, value: &Value<'_>) -> Option<Keyless> {
        let mut known = vec!["issuer", "subject"];
        known.extend(OF_REPOSITORIES);
        let object = self.object(value, "\"keyless\"", &known)?;
        let issuer = self.filled_string(&object, "issuer");
        let subject = self.filled_string(&object, "subject");
        let (issuer, subject) = (issuer?, subject?);
        let subject = match Forge::of_repository(&issuer, &subject) {
            Some(forge) => KeylessSubject::Repository(self.repository(&object, forge, subject)?),
            None => {
                self.identity_only(&object)?;
                KeylessSubject::Identity(subject)
            }
        };
        Some(Keyless { issuer, subject })
    }

    fn identity_only(&mut self, object: &Object<'_, '_>) -> Option<()> {
        let mut sound = Some(());
        for name in OF_REPOSITORIES {
            if let Some(value) = object.member(name) {
                let message = format!(
                    "\"{name}\" has no meaning, because \"subject\" is not the address of a repository of a known issuer"
                );
                self.problem(Code::InvalidRequirement, value.span, message);
                self.help(
                    "write \"https://github.com/OWNER/NAME\" with GitHub's issuer, or use \"fulcio\" with the members that you mean"
                        .to_owned(),
                );
                sound = None;
            }
        }
        sound
    }

    /// T-13.
    fn repository(&mut self, object: &Object<'_, '_>, forge: Forge, uri: String) -> Option<Repository> {
        let refs = match object.member("refs") {
            None => Some(Refs::NoRequests),
            Some(value) => self
                .globs(
                    "refs",
                    value,
                    "refs/",
                    "write the full name, such as \"refs/heads/main\" or \"refs/tags/*\"",
                )
                .map(Refs::Only),
        };
        let workflows = match object.member("workflows") {
            None => Some(Workflows::All),
            Some(value) => {
                let (directory, help) = match forge {
                    Forge::GitHub => {
                        (".github/workflows/", "write the path, such as \".github/workflows/build.yml\"")
                    }
                    Forge::GitLab => ("", "write the path, such as \".gitlab-ci.yml\""),
                };
                self.globs("workflows", value, directory, help).map(Workflows::Only)
            }
        };
        let triggers = match object.member("triggers") {
            None => Some(forge.default_triggers()),
            Some(value) => self.filled_strings("triggers", value),
        };
        let reusable = match object.member("allowReusableWorkflow") {
            None => Some(Reusable::Own),
            Some(value) => {
                let allowed = self.boolean("allowReusableWorkflow", value);
                allowed.map(|allowed| if allowed { Reusable::Foreign } else { Reusable::Own })
            }
        };
        let mut pins = Vec::new();
        for (name, field) in [
            ("runnerEnvironment", Field::RunnerEnvironment),
            ("repositoryId", Field::SourceRepositoryIdentifier),
        ] {
            if object.member(name).is_some() {
                let wanted = self.filled_string(object, name).map(Wanted::Exact);
                pins.push(wanted.map(|wanted| Pin { field, wanted }));
            }
        }
        Some(Repository {
            refs: refs?,
            workflows: workflows?,
            triggers: triggers?,
            reusable: reusable?,
            pins: pins.into_iter().collect::<Option<_>>()?,
            ..Repository::plain(forge, uri)
        })
    }

    fn globs(
        &mut self,
        name: &str,
        value: &Value<'_>,
        directory: &str,
        help: &str,
    ) -> Option<NonEmpty<Glob>> {
        let texts = self.filled_strings(name, value)?;
        let spans = value.elements().unwrap_or_default().iter().map(|element| element.span);
        let mut globs = Vec::new();
        for (text, span) in texts.iter().zip(spans) {
            let glob = Glob::parse(text).filter(|glob| glob.starts_with(directory));
            if glob.is_none() {
                let message = format!(
                    "\"{}\" in \"{name}\" can never match; \"*\" may only be all of the last part",
                    escape(text)
                );
                self.problem(Code::InvalidValue, span, message);
                self.help(help.to_owned());
            }
            globs.push(glob);
        }
        globs.into_iter().collect::<Option<Vec<_>>>().and_then(NonEmpty::from_vec)
    }

    /// A list of strings in which nothing is empty; null is nothing.
    fn filled_strings(&mut self, name: &str, value: &Value<'_>) -> Option<NonEmpty<String>> {
        let texts = self.strings(name, value)?;
        let list = NonEmpty::from_vec(texts).filter(|list| list.iter().all(|text| !text.is_empty()));
        if list.is_none() {
            let message = format!("\"{name}\" must not be empty, nor anything in it");
            self.problem(Code::InvalidValue, value.span, message);
        }
        list
    }

    pub(super) fn boolean(&mut self, name: &str, value: &Value<'_>) -> Option<bool> {
        match &value.data {
            Data::Bool(value) => Some(*value),
            Data::Null | Data::Number(_) | Data::String(_) | Data::Array(_) | Data::Object(_) => {
                self.problem(Code::InvalidType, value.span, format!("\"{name}\" must be true or false"));
                None
            }
        }
    }

    /// `manifestAnnotations` (T-16): names with the values that they must have.
    pub(super) fn annotations(&mut self, object: &Object<'_, '_>) -> Option<BTreeMap<String, String>> {
        let name = "manifestAnnotations";
        let Some(value) = object.member(name) else { return Some(BTreeMap::new()) };
        let Some(members) = value.members() else {
            self.problem(Code::InvalidType, value.span, format!("\"{name}\" must be an object"));
            return None;
        };
        if members.is_empty() {
            self.problem(Code::InvalidValue, value.span, format!("\"{name}\" must not be empty"));
            return None;
        }
        let mut annotations = BTreeMap::new();
        let mut sound = true;
        for member in members {
            let Some(text) = member.value.text() else {
                let message = format!("\"{}\" in \"{name}\" must be a string", escape(&member.key));
                self.problem(Code::InvalidType, member.value.span, message);
                sound = false;
                continue;
            };
            if annotations.insert(member.key.clone().into_owned(), text.to_owned()).is_some() {
                let message = format!("\"{name}\" has \"{}\" twice", escape(&member.key));
                self.problem(Code::DuplicateKey, member.key_span, message);
                sound = false;
            }
        }
        sound.then_some(annotations)
    }
}

/// The first member about a log, effective or not.
fn rekor_span(requirement: &Object<'_, '_>) -> Option<Span> {
    super::REKOR.iter().find_map(|name| requirement.member(name)).map(|value| value.span)
}
