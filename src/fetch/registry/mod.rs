//! [`Client`]: manifests, blobs and lookaside files over HTTPS, within limits and a deadline.
//!
//! Redirects and token servers are chosen by the registry, so each hop is checked here and none is left to
//! the HTTP library: scheme, address at connect time, and what it may be told (T-29).

mod address;
mod authorization;
mod certificates;
mod challenge;
mod patience;
mod properties;
mod proxy;
mod refusal;
mod server_certificate;
mod trust;
mod visit;

use std::collections::HashMap;
use std::error::Error as StdError;
use std::hash::Hash;
use std::iter;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oci_client::Reference;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LINK, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::time::Instant;

use crate::digest::{Algorithm, Digest};
use crate::fetch::credentials::{self, Found, Secret, Stores};
use crate::fetch::registry::address::{Class, NotAllowed, Reach, redirect_target, same_server};
use crate::fetch::registry::authorization::{HintKey, Hints, Known, Tokens};
use crate::fetch::registry::challenge::{Challenge, Scanner};
use crate::fetch::registry::properties::Known as KnownProperties;
use crate::fetch::registry::refusal::Refusal;
use crate::fetch::registry::trust::Trust;
use crate::fetch::registry::visit::Visit;
use crate::fetch::{Budget, Error, MANIFEST_BYTES, Principal};
use crate::manifest;
use crate::reference::{Named, is_domain};

pub use proxy::{NotUsable, Proxies};
pub use server_certificate::SystemRoots;

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The only directory with certificates, for every registry (rule T-2).
    pub cert_dir: Option<PathBuf>,
    /// Else, directories with one for each registry, the most important first (rule T-1).
    pub certs_d: Vec<PathBuf>,
    /// Where credentials come from.
    pub auth: credentials::Source,
    /// Which authorities the system trusts.
    pub roots: SystemRoots,
}

impl Default for Settings {
    /// No credentials, and the classic directories of certificates.
    fn default() -> Self {
        let certs_d = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        Self {
            cert_dir: None,
            certs_d: certs_d.into(),
            auth: credentials::Source::Anonymous,
            roots: SystemRoots::System,
        }
    }
}

/// Whose image is asked for, by which means and within which limits.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    /// The repository where it really is, which may be a mirror (rule M-7).
    pub image: &'a Named,
    /// Whether the registry need not prove who it is, and may speak plain HTTP (rule M-9).
    pub insecure: bool,
    /// What the registry may be shown, if that is known already.
    pub credentials: Option<&'a Found>,
    /// For whom it is.
    pub principal: &'a Principal,
    /// By way of which proxies.
    pub proxies: &'a Proxies,
    /// What it may take.
    pub budget: &'a Budget,
    /// When it must be over.
    pub deadline: Instant,
}

impl<'a> Errand<'a> {
    /// To a registry that must prove who it is, without a proxy.
    pub fn new(image: &'a Named, budget: &'a Budget, deadline: Instant) -> Self {
        Self {
            image,
            insecure: false,
            credentials: None,
            principal: &Principal::OWNER,
            proxies: &proxy::NONE,
            budget,
            deadline,
        }
    }
}

/// Reaches registries for one principal: connections and tokens are shared among its requests (T-25).
///
/// Certificates and authentication files are read again for every question.
#[derive(Debug)]
pub struct Client {
    settings: Arc<Settings>,
    trusts: Mutex<HashMap<String, Arc<Trust>>>,
    hints: Hints,
    tokens: Tokens,
    properties: Mutex<HashMap<HintKey, KnownProperties>>,
}

/// A manifest as a registry sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The Content-Type in lower case without parameters; empty if there is none or it is malformed.
    pub media_type: String,
}

/// A page of a list of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fetch) struct Page {
    /// An image index, not parsed.
    pub(in crate::fetch) body: Vec<u8>,
    /// The query of the next page.
    pub(in crate::fetch) next: Option<String>,
}

impl Client {
    /// A client that has read nothing and asked nobody yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            trusts: Mutex::default(),
            hints: Hints::default(),
            tokens: Tokens::default(),
            properties: Mutex::default(),
        }
    }

    /// The manifest with this tag or digest (rule H-4); fetched by digest, it has that digest.
    pub async fn manifest(&self, errand: &Errand<'_>, reference: &str) -> Result<Document, Error> {
        let wanted = full_reference(errand.image, reference);
        let visit = self.visit(errand, format!("the manifest of {wanted}")).await?;
        match self.find_manifest(&visit, errand, &wanted).await? {
            Ok(document) => Ok(document),
            Err(refusal) if refusal.is_missing() || refusal.status == StatusCode::NOT_FOUND => {
                Err(Error::ImageNotFound { image: wanted.whole(), detail: refusal.to_string() })
            }
            Err(refusal) => Err(refusal.into_error(&visit)),
        }
    }

    /// As [`Client::manifest`], but none if the registry says "does not exist" as rule A-3 has it.
    pub(in crate::fetch) async fn attachment(
        &self,
        errand: &Errand<'_>,
        tag: &str,
    ) -> Result<Option<Document>, Error> {
        let wanted = full_reference(errand.image, tag);
        let visit = self.visit(errand, format!("the signatures at {wanted}")).await?;
        match self.find_manifest(&visit, errand, &wanted).await? {
            Ok(document) => Ok(Some(document)),
            Err(refusal) if refusal.is_missing() => Ok(None),
            Err(refusal) => Err(refusal.into_error(&visit)),
        }
    }

    /// The blob with this digest, of at most `limit` bytes. The `urls` of a descriptor are never asked (T-29).
    pub async fn blob(&self, errand: &Errand<'_>, digest: &Digest, limit: usize) -> Result<Vec<u8>, Error> {
        let image = errand.image;
        let visit = self.visit(errand, format!("the blob {}@{digest}", image.name())).await?;
        let path = format!("/v2/{}/blobs/{digest}", image.path());
        let response = match self.get(&visit, errand, &path, None, "*/*").await? {
            Ok(response) => response,
            Err(refusal) => return Err(refusal.into_error(&visit)),
        };
        let bytes = visit.read(response, limit).await?;
        if !digest.matches(&bytes) {
            let found = Digest::compute(digest.algorithm(), &bytes);
            return Err(Error::DigestMismatch { location: visit.waiting_for, wanted: digest.clone(), found });
        }
        Ok(bytes)
    }

    /// A file of a lookaside store, or none if the answer is 404 (rules K-4, K-6, K-8).
    ///
    /// The TLS settings are those of the registry; its credentials are not sent, those in the URL are.
    pub async fn get_lookaside(
        &self,
        errand: &Errand<'_>,
        url: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, Error> {
        let location = presentable(url);
        let malformed =
            |detail: &str| Error::Lookaside { location: location.clone(), detail: detail.to_owned() };
        let home = Url::parse(url).map_err(|e| malformed(&e.to_string()))?;
        if !matches!(home.scheme(), "http" | "https") {
            return Err(malformed("the scheme is neither http nor https"));
        }
        let registry = errand.image.domain();
        if !is_domain(registry) {
            return Err(malformed("the registry has no host name"));
        }
        let waiting_for = format!("the signature {location}");
        let visit = Visit::to_server(errand, registry.to_owned(), home, waiting_for);
        let found = self.plain_file(&visit, limit, &[StatusCode::NOT_FOUND]).await;
        found.map_err(|e| as_lookaside(e, location.clone()))
    }

    /// A file that is public, or none if the answer is that there is none; object stores say 403 for that.
    pub(in crate::fetch) async fn file(
        &self,
        errand: &Errand<'_>,
        url: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, Error> {
        let server = errand.image.domain().to_owned();
        let home = Url::parse(url).map_err(|error| Error::RegistryProtocol {
            registry: server.clone(),
            detail: error.to_string(),
        })?;
        let visit = Visit::to_server(errand, server, home, presentable(url));
        self.plain_file(&visit, limit, &[StatusCode::FORBIDDEN, StatusCode::NOT_FOUND]).await
    }

    /// What is at the URL of the visit; none if the status is one of those that mean so.
    async fn plain_file(
        &self,
        visit: &Visit<'_>,
        limit: usize,
        missing: &[StatusCode],
    ) -> Result<Option<Vec<u8>>, Error> {
        let answer = self.exchange(visit, Ask::to(visit.home.clone())).await?;
        match answer.response.status() {
            StatusCode::OK => visit.read(answer.response, limit).await.map(Some),
            status if missing.contains(&status) => Ok(None),
            status => Err(visit.unavailable(&format!("status {status}"))),
        }
    }

    /// One page of the manifests that refer to a digest; none where the registry does not have the referrers API.
    ///
    /// OCI distribution-spec 1.1, "Listing Referrers": `query` is that of the page before. Whoever may not ask, or
    /// cannot be answered now, was not told that there are none.
    pub(in crate::fetch) async fn referrers(
        &self,
        errand: &Errand<'_>,
        digest: &Digest,
        query: Option<&str>,
    ) -> Result<Option<Page>, Error> {
        let name = errand.image.name();
        let visit = self.visit(errand, format!("the referrers of {name}@{digest}")).await?;
        let path = format!("/v2/{}/referrers/{digest}", errand.image.path());
        let response = match self.get(&visit, errand, &path, query, manifest::OCI_INDEX).await? {
            Ok(response) => response,
            Err(refusal) if matches!(refusal.status.as_u16(), 400 | 404 | 405 | 406 | 501) => {
                return Ok(None);
            }
            Err(refusal) => return Err(refusal.into_error(&visit)),
        };
        if media_type(response.headers()) != manifest::OCI_INDEX {
            return Ok(None);
        }
        let next = next_page(&visit, &path, response.headers())?;
        let body = visit.read(response, MANIFEST_BYTES).await?;
        Ok(Some(Page { body, next }))
    }

    /// The manifest at a tag of the referrers tag schema, or none.
    pub(in crate::fetch) async fn referrers_tag(
        &self,
        errand: &Errand<'_>,
        tag: &str,
    ) -> Result<Option<Document>, Error> {
        let wanted = full_reference(errand.image, tag);
        let visit = self.visit(errand, format!("the referrers at {wanted}")).await?;
        match self.find_manifest(&visit, errand, &wanted).await? {
            Ok(document) => Ok(Some(document)),
            Err(refusal) if refusal.is_missing() || refusal.status == StatusCode::NOT_FOUND => Ok(None),
            Err(refusal) => Err(refusal.into_error(&visit)),
        }
    }

    /// An answer of the API extension that keeps signatures (rule X-2).
    pub(in crate::fetch) async fn extension(
        &self,
        errand: &Errand<'_>,
        path: &str,
        limit: usize,
    ) -> Result<Vec<u8>, Error> {
        let waiting_for = format!("the signatures of {}", errand.image.name());
        let visit = self.visit(errand, waiting_for).await?;
        match self.get(&visit, errand, path, None, "*/*").await? {
            Ok(response) => visit.read(response, limit).await,
            Err(refusal) => Err(refusal.into_error(&visit)),
        }
    }

    /// What the registry may be shown: by the caller, if it supplied something, else by this host (rules U-3, U-5).
    pub(in crate::fetch) async fn credentials(
        &self,
        errand: &Errand<'_>,
        stores: Stores<'_>,
    ) -> Result<Found, Error> {
        let visit = Visit::to_registry(errand, format!("the credentials for {}", errand.image.domain()))?;
        let source = errand.principal.supplied.as_ref().unwrap_or(&self.settings.auth).clone();
        let (names, named_in) = (stores.names.to_vec(), stores.named_in.to_vec());
        let (repository, deadline) = (errand.image.name(), errand.deadline.into_std());
        let find = move || source.find(&repository, Stores { names: &names, named_in: &named_in }, deadline);
        visit.block(find).await?
    }

    async fn find_manifest(
        &self,
        visit: &Visit<'_>,
        errand: &Errand<'_>,
        wanted: &Reference,
    ) -> Result<Result<Document, Refusal>, Error> {
        let tag_or_digest = wanted.digest().or(wanted.tag()).unwrap_or_default();
        let digest = Digest::parse(tag_or_digest);
        let is_tag =
            tag_or_digest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if digest.is_none() && !is_tag {
            return Err(visit.protocol("what was asked for is neither a tag nor a digest"));
        }
        let path = format!("/v2/{}/manifests/{tag_or_digest}", wanted.repository());
        let response = match self.get(visit, errand, &path, None, &MANIFEST_TYPES.join(", ")).await? {
            Ok(response) => response,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let media_type = media_type(response.headers());
        if media_type == "text/html" {
            return Err(visit.no_manifest("a web page came instead of a manifest"));
        }
        let bytes = visit.read(response, MANIFEST_BYTES).await?;
        if let Some(digest) = digest {
            check_manifest(visit, &digest, &bytes)?;
        }
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(visit.no_manifest("what came instead of a manifest is not a JSON object"));
        }
        Ok(Ok(Document { bytes, media_type }))
    }

    /// Asks the registry, authenticates if it wants that, and gives the answer if its status is 200.
    ///
    /// There is no `/v2/` probe: the challenge is read from the first answer, unless an earlier one gives a hint.
    async fn get(
        &self,
        visit: &Visit<'_>,
        errand: &Errand<'_>,
        path: &str,
        query: Option<&str>,
        accept: &str,
    ) -> Result<Result<Response, Refusal>, Error> {
        let mut url = visit.home.clone();
        url.set_path(path);
        if url.path() != path {
            return Err(visit.protocol("the name does not fit into a URL"));
        }
        url.set_query(query);
        let accept =
            HeaderValue::from_str(accept).map_err(|_| visit.protocol("the media types are no header"))?;
        let looked_up;
        let found = match errand.credentials {
            Some(found) => found,
            None => {
                looked_up = self.credentials(errand, Stores::default()).await?;
                &looked_up
            }
        };
        let credentials = found.credentials.as_ref();
        let mut scopes = vec![format!("repository:{}:pull", errand.image.path())];
        let mut known = self.hint(visit).await?;
        // Unauthenticated or with an old token; with a new token; with a wider one (rule H-3).
        for attempts_left in (0..3).rev() {
            let authorization = self.authorize(visit, known.as_ref(), &scopes, credentials).await?;
            let header = authorization.as_ref().map(|a| a.header.clone());
            let ask = Ask { accept: Some(accept.clone()), authorization: header, ..Ask::to(url.clone()) };
            let answer = self.exchange(visit, ask).await?;
            if answer.response.status() == StatusCode::OK {
                return Ok(Ok(answer.response));
            }
            let challenge = answer.challenge(visit)?.filter(|challenge| {
                attempts_left > 0 && challenge.is_worth_trying(authorization.as_ref(), credentials, &scopes)
            });
            let Some(challenge) = challenge else {
                // What it may be shown may have changed since the token was made.
                if matches!(answer.response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    self.forget_tokens(&visit.registry, &scopes);
                }
                let refusal =
                    Refusal::read(visit, answer.response, authorization.as_ref(), credentials).await?;
                return Ok(Err(refusal));
            };
            match challenge.scope_beyond(&scopes) {
                // The token is good, but not for this.
                Some(scope) => scopes.push(scope.clone()),
                None if authorization.is_some_and(|a| a.scheme == challenge.scheme) => {
                    self.forget_tokens(&visit.registry, &scopes);
                }
                None => {}
            }
            known = Some(Known { scheme: challenge.scheme, class: answer.class });
        }
        Err(visit.protocol("it asks for authentication without end"))
    }

    /// Sends one request and follows redirects.
    async fn exchange(&self, visit: &Visit<'_>, ask: Ask) -> Result<Answer, Error> {
        let Ask { mut url, accept, mut authorization, form, steered_from } = ask;
        let mut class = steered_from;
        for _ in 0..=REDIRECTS {
            let at_home = same_server(&url, &visit.home);
            let reach = match (at_home, visit.guarded) {
                (true, false) => Reach::Configured,
                (true, true) => Reach::Guarded,
                (false, false) => Reach::Steered(class.unwrap_or(Class::Public)),
                (false, true) => Reach::GuardedSteered(class.unwrap_or(Class::Public)),
            };
            let host = url.host_str().unwrap_or_default();
            let proxied = visit.proxies.of(&url).is_some();
            // Where the proxy is, only the administrator may lead.
            let misled = !at_home && !proxied && visit.proxies.are_at(host);
            if misled || !reach.allows_literal(&url) {
                return Err(visit.protocol(&format!("{host} {NotAllowed}")));
            }
            let connection = self.connection(visit, reach).await?;
            let method = if form.is_some() { Method::POST } else { Method::GET };
            let mut request = connection.request(method, url.clone());
            if let Some(accept) = &accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(authorization) = &authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            if let Some(form) = &form {
                request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                request = request.body(form.expose().to_owned());
            }
            let request = request.build().map_err(|e| visit.failed(&e))?;
            // User and password of a lookaside URL have become a header, to be dropped like any other.
            authorization = request.headers().get(AUTHORIZATION).cloned();
            url = request.url().clone();
            let response = visit.send(&connection, request).await?;
            if at_home && class.is_none() {
                class = Some(match response.remote_addr() {
                    Some(address) if !proxied => Class::of(address.ip()),
                    Some(_) | None => Class::of_literal(&url).unwrap_or(Class::Public),
                });
            }
            if !is_redirect(response.status()) {
                return Ok(Answer { response, class: class.unwrap_or(Class::Public), at_home });
            }
            if form.is_some() {
                return Err(visit.protocol("its token server redirects a request that holds a secret"));
            }
            let target = redirect_target(&url, response.headers())
                .map_err(|detail| visit.protocol(&format!("its redirect {detail}")))?;
            if !same_server(&target, &url) {
                authorization = None;
            }
            url = target;
        }
        Err(visit.protocol(&format!("it redirects more than {REDIRECTS} times")))
    }
}

/// A request, before redirects.
struct Ask {
    url: Url,
    accept: Option<HeaderValue>,
    authorization: Option<HeaderValue>,
    /// The body of a POST.
    form: Option<Secret>,
    /// Set if the registry named this URL: the class of the registry's own address.
    steered_from: Option<Class>,
}

impl Ask {
    fn to(url: Url) -> Self {
        Self { url, accept: None, authorization: None, form: None, steered_from: None }
    }
}

/// The response that is no redirect.
struct Answer {
    response: Response,
    /// The class of the configured server's address.
    class: Class,
    /// Whether the configured server itself sent it.
    at_home: bool,
}

impl Answer {
    /// The first supported challenge of a 401 by the registry itself (rule H-2).
    ///
    /// Where a redirect leads, nobody may ask for the registry's credentials.
    fn challenge(&self, visit: &Visit<'_>) -> Result<Option<Challenge>, Error> {
        if !self.at_home || self.response.status() != StatusCode::UNAUTHORIZED {
            return Ok(None);
        }
        let headers = self.response.headers().get_all(WWW_AUTHENTICATE);
        let challenge =
            headers.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::first_supported);
        if let Some(challenge) = &challenge {
            challenge.check_length().map_err(|detail| visit.protocol(&detail))?;
        }
        Ok(challenge)
    }
}

/// The query of the next page; RFC 8288. It leads to the same list on the same server, or the answer breaks the rules.
fn next_page(visit: &Visit<'_>, path: &str, headers: &HeaderMap) -> Result<Option<String>, Error> {
    for value in headers.get_all(LINK) {
        let text = value.to_str().map_err(|_| visit.protocol("its Link header is not text"))?;
        let Some((target, parameters)) = text.trim().strip_prefix('<').and_then(|t| t.split_once('>')) else {
            return Err(visit.protocol("its Link header is malformed"));
        };
        let is_next = parameters.split(';').map(str::trim).any(|p| matches!(p, "rel=next" | "rel=\"next\""));
        if !is_next {
            continue;
        }
        let mut here = visit.home.clone();
        here.set_path(path);
        let target = here.join(target).map_err(|_| visit.protocol("its Link header leads to no URL"))?;
        let query = target.query().filter(|query| !query.is_empty() && query.len() <= QUERY_BYTES);
        return match query {
            Some(query) if same_server(&target, &here) && target.path() == path => Ok(Some(query.to_owned())),
            Some(_) | None => Err(visit.protocol("its Link header leads somewhere else")),
        };
    }
    Ok(None)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The type without its parameters, which must be well formed; as Go's `mime.ParseMediaType` (rule A-4).
fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (media_type, parameters) = match value.split_once(';') {
        Some((media_type, parameters)) => (media_type, Some(parameters)),
        None => (value, None),
    };
    let mut scanner = Scanner(parameters.unwrap_or_default());
    scanner.skip(&[' ', '\t']);
    while !scanner.0.is_empty() {
        if scanner.parameter().is_none() {
            return String::new();
        }
        scanner.0 = scanner.0.strip_prefix(';').unwrap_or(scanner.0);
        scanner.skip(&[' ', '\t']);
    }
    media_type.trim().to_ascii_lowercase()
}

/// A manifest has the digest by which it was asked for; schema 1 by its own rule (E-22).
fn check_manifest(visit: &Visit<'_>, wanted: &Digest, bytes: &[u8]) -> Result<(), Error> {
    let found = match wanted.algorithm() {
        Algorithm::Sha256 => manifest::digest(bytes).map_err(|e| visit.no_manifest(&e.to_string()))?,
        algorithm @ (Algorithm::Sha384 | Algorithm::Sha512) => Digest::compute(algorithm, bytes),
    };
    if found == *wanted {
        Ok(())
    } else {
        Err(Error::DigestMismatch { location: visit.waiting_for.clone(), wanted: wanted.clone(), found })
    }
}

/// The image at this tag or digest. Which server is asked, [`Visit::to_registry`] says (rule H-1), not this type.
fn full_reference(image: &Named, tag_or_digest: &str) -> Reference {
    let make = if tag_or_digest.contains(':') { Reference::with_digest } else { Reference::with_tag };
    make(image.domain().to_owned(), image.path().to_owned(), tag_or_digest.to_owned())
}

/// A URL as it may be shown: without user, password, query and fragment.
fn presentable(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) if matches!(url.scheme(), "http" | "https") => {
            // These fail only for URLs that cannot have them.
            let _ = (url.set_username(""), url.set_password(None));
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        Ok(_) | Err(_) => "(no http URL)".to_owned(),
    }
}

fn as_lookaside(error: Error, location: String) -> Error {
    match error {
        Error::RegistryAuth { detail, .. }
        | Error::RegistryProtocol { detail, .. }
        | Error::RegistryUnavailable { detail, .. } => Error::Lookaside { location, detail },
        Error::Tls { detail, .. } => Error::Lookaside { location, detail },
        other @ (Error::AuthFile { .. }
        | Error::Busy
        | Error::Certificates { .. }
        | Error::Config(_)
        | Error::CredentialHelper { .. }
        | Error::CredentialStores { .. }
        | Error::DigestMismatch { .. }
        | Error::Endpoints { .. }
        | Error::EvidenceTooLarge
        | Error::ImageNotFound { .. }
        | Error::KeyFile { .. }
        | Error::Local { .. }
        | Error::Lookaside { .. }
        | Error::Manifest { .. }
        | Error::MalformedSignature { .. }
        | Error::NoMatchingPlatform { .. }
        | Error::Proxy { .. }
        | Error::TimedOut { .. }
        | Error::UnsupportedTransport(_)) => other,
    }
}

/// An error and what it came from, outermost first.
fn causes(error: &reqwest::Error) -> Vec<&(dyn StdError + 'static)> {
    let first: &(dyn StdError + 'static) = error;
    iter::successors(Some(first), |e| (*e).source()).collect()
}

/// The beginning of a text from outside.
pub(in crate::fetch) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(EXCERPT_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers a value; a memory without room for it is emptied first.
fn insert<K: Eq + Hash, V>(memory: &Mutex<HashMap<K, V>>, key: K, value: V, most: usize) {
    let mut memory = lock(memory);
    if memory.len() >= most && !memory.contains_key(&key) {
        memory.clear();
    }
    memory.insert(key, value);
}

/// What rule H-4 accepts.
const MANIFEST_TYPES: [&str; 6] = [
    manifest::OCI_MANIFEST,
    manifest::DOCKER_MANIFEST,
    manifest::DOCKER_SCHEMA1_SIGNED,
    manifest::DOCKER_SCHEMA1,
    manifest::DOCKER_LIST,
    manifest::OCI_INDEX,
];

/// Longest query of a next page: 4 KiB.
const QUERY_BYTES: usize = 4 << 10;

/// Rule H-9.
const REDIRECTS: usize = 10;

/// Rule H-7.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Most characters of a registry's own words in an error.
const EXCERPT_CHARS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_stripped_only_of_proper_parameters() {
        for (value, expected) in [
            ("a/b", "a/b"),
            (" A/B ", "a/b"),
            ("a/b; charset=utf-8", "a/b"),
            ("a/b ;charset=\"u;t\" ; x=y", "a/b"),
            ("a/b;", "a/b"),
            ("a/b; charset", ""),
            ("a/b; =x", ""),
            ("a/b; x=\"y", ""),
            ("", ""),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(value).unwrap())]);
            assert_eq!(media_type(&headers), expected, "{value}");
        }
        assert_eq!(media_type(&HeaderMap::new()), "");
    }

    #[test]
    fn presentable_urls_hold_no_secret() {
        for (url, shown) in [
            ("https://u:p@h:1/a/b?sig=1#f", "https://h:1/a/b"),
            ("http://h/a@sha256=1/signature-1", "http://h/a@sha256=1/signature-1"),
            ("u:p@h", "(no http URL)"),
            ("https://u:p@h:x", "(no http URL)"),
        ] {
            assert_eq!(presentable(url), shown, "{url}");
        }
    }
}
