//! [`Client`]: manifests, blobs and lookaside files over HTTPS, within limits and a deadline.
//!
//! Redirects and token servers are chosen by the registry, so each hop is checked here and none is left to
//! the HTTP library: scheme, address at connect time, and what it may be told (T-29).

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::hash::Hash;
use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode, Url, tls};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::time::{Instant, timeout_at};

use crate::config::RegularFile;
use crate::digest::{Algorithm, Digest};
use crate::fetch::credentials::{self, Credentials, Secret};
use crate::fetch::{Budget, Error, MANIFEST_BYTES};
use crate::manifest;
use crate::reference::{Named, is_domain};

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The only directory with certificates, for every registry; else they are searched for (rules T-1, T-2).
    pub cert_dir: Option<PathBuf>,
    /// Where credentials come from.
    pub auth: credentials::Source,
}

/// Reaches registries for one principal: connections and tokens are shared among its requests (T-25).
///
/// Certificates are read when a registry is first reached, authentication files at every request.
#[derive(Debug)]
pub struct Client {
    auth: credentials::Source,
    certificates: Option<Arc<Certificates>>,
    connections: Mutex<HashMap<(String, Reach), reqwest::Client>>,
    challenges: Mutex<HashMap<String, Known>>,
    tokens: Mutex<HashMap<TokenKey, Token>>,
}

/// A manifest as a registry sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The Content-Type in lower case without parameters; empty if there is none or it is malformed.
    pub media_type: String,
}

impl Client {
    /// A client without connections. Reads the certificates of [`Settings::cert_dir`]: it blocks.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let certificates = match &settings.cert_dir {
            Some(dir) => Some(Arc::new(Certificates::read(dir)?)),
            None => None,
        };
        Ok(Self {
            auth: settings.auth,
            certificates,
            connections: Mutex::default(),
            challenges: Mutex::default(),
            tokens: Mutex::default(),
        })
    }

    /// The manifest with this tag or digest (rule H-4); fetched by digest, it has that digest.
    pub async fn manifest(
        &self,
        image: &Named,
        reference: &str,
        budget: &Budget,
        deadline: Instant,
    ) -> Result<Document, Error> {
        let visit = Visit::to_registry(
            image,
            format!("the manifest of {}", full_name(image, reference)),
            budget,
            deadline,
        )?;
        match self.find_manifest(&visit, image, reference).await? {
            Ok(document) => Ok(document),
            Err(refusal) if refusal.is_missing() || refusal.status == StatusCode::NOT_FOUND => {
                Err(Error::ImageNotFound { image: full_name(image, reference), detail: refusal.to_string() })
            }
            Err(refusal) => Err(refusal.into_error(&visit)),
        }
    }

    /// As [`Client::manifest`], but none if the registry says "does not exist" as rule A-3 has it.
    pub(in crate::fetch) async fn attachment(
        &self,
        image: &Named,
        tag: &str,
        budget: &Budget,
        deadline: Instant,
    ) -> Result<Option<Document>, Error> {
        let visit =
            Visit::to_registry(image, format!("the signatures at {}", full_name(image, tag)), budget, deadline)?;
        match self.find_manifest(&visit, image, tag).await? {
            Ok(document) => Ok(Some(document)),
            Err(refusal) if refusal.is_missing() => Ok(None),
            Err(refusal) => Err(refusal.into_error(&visit)),
        }
    }

    /// The blob with this digest, of at most `limit` bytes. The `urls` of a descriptor are never asked (T-29).
    pub async fn blob(
        &self,
        image: &Named,
        digest: &Digest,
        limit: usize,
        budget: &Budget,
        deadline: Instant,
    ) -> Result<Vec<u8>, Error> {
        let visit = Visit::to_registry(image, format!("the blob {}@{digest}", image.name()), budget, deadline)?;
        let path = format!("/v2/{}/blobs/{digest}", image.path());
        let response = match self.get(&visit, image, &path, "*/*").await? {
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
    /// The TLS settings are those of `registry_host`; its credentials are not sent, those in the URL are.
    pub async fn get_lookaside(
        &self,
        registry_host: &str,
        url: &str,
        limit: usize,
        budget: &Budget,
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>, Error> {
        let location = presentable(url);
        let malformed = |detail: &str| Error::Lookaside { location: location.clone(), detail: detail.to_owned() };
        let home = Url::parse(url).map_err(|e| malformed(&e.to_string()))?;
        if !matches!(home.scheme(), "http" | "https") {
            return Err(malformed("the scheme is neither http nor https"));
        }
        if !is_domain(registry_host) {
            return Err(malformed("the registry has no host name"));
        }
        let visit = Visit {
            registry: registry_host.to_owned(),
            home: home.clone(),
            waiting_for: format!("the signature {location}"),
            budget,
            deadline,
        };
        let found = async {
            let answer = self.exchange(&visit, Ask::to(home)).await?;
            match answer.response.status() {
                StatusCode::OK => visit.read(answer.response, limit).await.map(Some),
                StatusCode::NOT_FOUND => Ok(None),
                status => Err(visit.unavailable(&format!("status {status}"))),
            }
        };
        found.await.map_err(|e| as_lookaside(e, location.clone()))
    }

    async fn find_manifest(
        &self,
        visit: &Visit<'_>,
        image: &Named,
        reference: &str,
    ) -> Result<Result<Document, Refusal>, Error> {
        let wanted = Digest::parse(reference);
        let is_tag = reference.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if wanted.is_none() && !is_tag {
            return Err(visit.protocol("what was asked for is neither a tag nor a digest"));
        }
        let path = format!("/v2/{}/manifests/{reference}", image.path());
        let response = match self.get(visit, image, &path, &MANIFEST_TYPES.join(", ")).await? {
            Ok(response) => response,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let media_type = media_type(response.headers());
        if media_type == "text/html" {
            return Err(visit.protocol("a web page came instead of a manifest"));
        }
        let bytes = visit.read(response, MANIFEST_BYTES).await?;
        if let Some(wanted) = wanted {
            check_manifest(visit, &wanted, &bytes)?;
        }
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(visit.protocol("what came instead of a manifest is not a JSON object"));
        }
        Ok(Ok(Document { bytes, media_type }))
    }

    /// Asks the registry, authenticates if it wants that, and gives the answer if its status is 200.
    ///
    /// There is no `/v2/` probe: the challenge is read from the first answer and remembered.
    async fn get(
        &self,
        visit: &Visit<'_>,
        image: &Named,
        path: &str,
        accept: &str,
    ) -> Result<Result<Response, Refusal>, Error> {
        let mut url = visit.home.clone();
        url.set_path(path);
        if url.path() != path {
            return Err(visit.protocol("the name does not fit into a URL"));
        }
        let accept = HeaderValue::from_str(accept).map_err(|_| visit.protocol("the media types are no header"))?;
        let auth = self.auth.clone();
        let repository = image.name();
        let credentials = visit.block(move || auth.find(&repository)).await??;
        let mut scopes = vec![format!("repository:{}:pull", image.path())];
        // Unauthenticated or with an old token; with a new token; with a wider one (rule H-3).
        for attempts_left in (0..3).rev() {
            let authorization = self.authorize(visit, &scopes, credentials.as_ref()).await?;
            let header = authorization.as_ref().map(|a| a.header.clone());
            let ask = Ask { accept: Some(accept.clone()), authorization: header, ..Ask::to(url.clone()) };
            let answer = self.exchange(visit, ask).await?;
            if answer.response.status() == StatusCode::OK {
                return Ok(Ok(answer.response));
            }
            let challenge = answer.challenge().filter(|challenge| {
                attempts_left > 0
                    && challenge.is_worth_trying(authorization.as_ref(), credentials.as_ref(), &scopes)
            });
            let Some(challenge) = challenge else {
                return Ok(Err(visit
                    .refusal(answer.response, authorization.as_ref(), credentials.as_ref())
                    .await?));
            };
            if authorization.is_some_and(|a| a.scheme == challenge.scheme) {
                self.forget_tokens(&visit.registry, &scopes);
            }
            scopes.extend(challenge.wider_scope);
            let known = Known { scheme: challenge.scheme, class: answer.class };
            insert(&self.challenges, visit.registry.clone(), known, CHALLENGES);
        }
        Err(visit.protocol("it asks for authentication without end"))
    }

    /// What to send to the registry, as far as its challenge is known.
    async fn authorize(
        &self,
        visit: &Visit<'_>,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<Option<Authorization>, Error> {
        let known = lock(&self.challenges).get(&visit.registry).cloned();
        match known {
            None => Ok(None),
            Some(Known { scheme: Scheme::Basic, .. }) => {
                credentials.filter(|c| has_password(c)).map(|c| basic(visit, c)).transpose()
            }
            Some(Known { scheme: Scheme::Bearer { realm, service }, class }) => {
                let key = TokenKey {
                    registry: visit.registry.clone(),
                    realm: realm.clone(),
                    service: service.clone(),
                    scopes: scopes.to_vec(),
                    credentials: credentials.map(Credentials::fingerprint),
                };
                let cached = lock(&self.tokens).get(&key).filter(|t| Instant::now() < t.expires).cloned();
                let fresh = cached.is_none();
                let token = match cached {
                    Some(token) => token,
                    None => {
                        let token = self.fetch_token(visit, &key, class, credentials).await?;
                        insert(&self.tokens, key, token.clone(), TOKENS);
                        token
                    }
                };
                let header = format!("Bearer {}", token.secret.expose());
                let scheme = Scheme::Bearer { realm, service };
                let header =
                    sensitive(&header).ok_or_else(|| visit.protocol("its token does not fit into a header"))?;
                Ok(Some(Authorization { header, scheme, fresh, secrets: vec![token.secret] }))
            }
        }
    }

    /// A new token for these scopes (rule H-3).
    async fn fetch_token(
        &self,
        visit: &Visit<'_>,
        key: &TokenKey,
        class: Class,
        credentials: Option<&Credentials>,
    ) -> Result<Token, Error> {
        let realm =
            Url::parse(&key.realm).map_err(|e| visit.protocol(&format!("its token realm is no URL: {e}")))?;
        check_steered_url(&realm).map_err(|detail| visit.protocol(&format!("its token realm {detail}")))?;
        let host = excerpt(realm.host_str().unwrap_or_default());
        let visit = visit.instead_for(format!("a token from {host}"));
        let mut ask = Ask { steered_from: Some(class), ..Ask::to(realm) };
        let mut shown = None;
        let mut fields = vec![("service", key.service.as_str())];
        fields.retain(|(_, value)| !value.is_empty());
        fields.extend(key.scopes.iter().map(|scope| ("scope", scope.as_str())));
        if let Some(token) = credentials.and_then(|c| c.identity_token.as_ref()) {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "vouchd"),
                ("refresh_token", token.expose()),
            ]);
            ask.form = Some(Secret::new(form(&fields)));
        } else {
            let user = credentials.map(|c| c.user.as_str()).filter(|user| !user.is_empty());
            ask.url.query_pairs_mut().extend_pairs(user.map(|user| ("account", user))).extend_pairs(&fields);
            if let Some(credentials) = credentials.filter(|c| has_password(c)) {
                shown = Some(basic(&visit, credentials)?);
                ask.authorization = shown.as_ref().map(|a| a.header.clone());
            }
        }
        let answer = self.exchange(&visit, ask).await?;
        if answer.response.status() != StatusCode::OK {
            let refusal = visit.refusal(answer.response, shown.as_ref(), credentials).await?;
            return Err(refusal.into_error(&visit));
        }
        let body = visit.read(answer.response, TOKEN_BYTES).await?;
        Token::parse(&body).ok_or_else(|| visit.protocol("its token server sent no token"))
    }

    fn forget_tokens(&self, registry: &str, scopes: &[String]) {
        lock(&self.tokens).retain(|key, _| key.registry != registry || key.scopes != scopes);
    }

    /// Sends one request and follows redirects.
    async fn exchange(&self, visit: &Visit<'_>, ask: Ask) -> Result<Answer, Error> {
        let Ask { mut url, accept, mut authorization, form, steered_from } = ask;
        let mut class = steered_from;
        for _ in 0..=REDIRECTS {
            let at_home = same_server(&url, &visit.home);
            let reach = if at_home { Reach::Configured } else { Reach::Steered(class.unwrap_or(Class::Public)) };
            if !reach.allows_literal(&url) {
                return Err(visit.protocol(&format!("{} {NotAllowed}", url.host_str().unwrap_or_default())));
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
            visit.budget.request()?;
            let response = visit.within(connection.execute(request)).await?.map_err(|e| visit.failed(&e))?;
            if at_home && class.is_none() {
                class = Some(response.remote_addr().map_or(Class::Public, |address| Class::of(address.ip())));
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

    /// The connections of a registry that may go as far as `reach`.
    async fn connection(&self, visit: &Visit<'_>, reach: Reach) -> Result<reqwest::Client, Error> {
        let key = (visit.registry.clone(), reach);
        if let Some(known) = lock(&self.connections).get(&key) {
            return Ok(known.clone());
        }
        let registry = visit.registry.clone();
        let certificates = self.certificates.clone();
        let build = move || match certificates {
            Some(certificates) => certificates.connect(reach),
            None => Certificates::search(&registry)?.connect(reach),
        };
        let made = visit.block(build).await??;
        let mut connections = lock(&self.connections);
        if connections.len() >= CONNECTIONS {
            connections.clear();
        }
        Ok(connections.entry(key).or_insert(made).clone())
    }
}

/// What one question needs everywhere: who is asked, for what, and how much it may take.
struct Visit<'a> {
    /// Host and port as in image names; its TLS settings count.
    registry: String,
    /// The server that was configured. Every other one was named by it or by one that it named.
    home: Url,
    waiting_for: String,
    budget: &'a Budget,
    deadline: Instant,
}

impl<'a> Visit<'a> {
    fn to_registry(
        image: &Named,
        waiting_for: String,
        budget: &'a Budget,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let registry = image.domain().to_owned();
        // Rule H-1.
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { &registry };
        match Url::parse(&format!("https://{host}/")) {
            Ok(home) if is_domain(host) => Ok(Self { registry, home, waiting_for, budget, deadline }),
            Ok(_) | Err(_) => Err(Error::RegistryUnavailable {
                registry,
                detail: "it is no host name with optional port".to_owned(),
            }),
        }
    }

    fn instead_for(&self, waiting_for: String) -> Self {
        Self {
            registry: self.registry.clone(),
            home: self.home.clone(),
            waiting_for,
            budget: self.budget,
            deadline: self.deadline,
        }
    }

    async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let timed_out = |_| Error::TimedOut { waiting_for: self.waiting_for.clone() };
        timeout_at(self.deadline, work).await.map_err(timed_out)
    }

    async fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let done = self.within(tokio::task::spawn_blocking(work)).await?;
        done.map_err(|_| self.unavailable("its certificates or credentials could not be read"))
    }

    /// Reads a body of at most `limit` bytes.
    async fn read(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, Error> {
        let announced = response.content_length().unwrap_or(0);
        if usize::try_from(announced).map_or(true, |announced| announced > limit) {
            return Err(self.protocol(&format!("it announces {announced} bytes, of at most {limit}")));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = self.within(response.chunk()).await?.map_err(|e| self.failed(&e))? {
            if chunk.len() > limit.saturating_sub(bytes.len()) {
                return Err(self.protocol(&format!("it sends more than {limit} bytes")));
            }
            self.budget.bytes(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Reads why there is no other answer. A text that repeats what was secret is not shown.
    async fn refusal(
        &self,
        response: Response,
        authorization: Option<&Authorization>,
        credentials: Option<&Credentials>,
    ) -> Result<Refusal, Error> {
        let status = response.status();
        let body = self.read(response, ERROR_BYTES).await?;
        let said = OciError::parse(&body);
        let text = match &said {
            Some(OciError { code: Some(code), message }) => format!("{code}: {message}"),
            Some(OciError { code: None, message }) => message.clone(),
            None => String::from_utf8_lossy(&body).trim().to_owned(),
        };
        let used = authorization.into_iter().flat_map(|a| &a.secrets);
        let held = credentials.into_iter().flat_map(|c| iter::once(&c.password).chain(&c.identity_token));
        let repeats = used.chain(held).any(|s| !s.expose().is_empty() && text.contains(s.expose()));
        let text = if repeats { "(an answer that repeats a secret)".to_owned() } else { excerpt(&text) };
        Ok(Refusal { status, said, text, had_credentials: credentials.is_some() })
    }

    fn failed(&self, error: &reqwest::Error) -> Error {
        let chain = causes(error);
        let last = excerpt(&chain.last().map(ToString::to_string).unwrap_or_default());
        if chain.iter().any(|e| e.is::<NotAllowed>()) {
            self.protocol(&format!("a host that it names {last}"))
        } else if error.is_connect() && error.is_timeout() {
            self.unavailable(&format!("no connection within {} seconds", CONNECT_TIMEOUT.as_secs()))
        } else if error.is_connect() {
            self.unavailable(&format!("no connection: {last}"))
        } else {
            self.unavailable(&last)
        }
    }

    fn protocol(&self, detail: &str) -> Error {
        let detail = format!("{}: {}", self.waiting_for, excerpt(detail));
        Error::RegistryProtocol { registry: self.registry.clone(), detail }
    }

    fn unavailable(&self, detail: &str) -> Error {
        let detail = format!("{}: {}", self.waiting_for, excerpt(detail));
        Error::RegistryUnavailable { registry: self.registry.clone(), detail }
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
    fn challenge(&self) -> Option<Challenge> {
        if !self.at_home || self.response.status() != StatusCode::UNAUTHORIZED {
            return None;
        }
        let headers = self.response.headers().get_all(WWW_AUTHENTICATE);
        headers.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::first_supported)
    }
}

/// How a registry wants to be shown who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scheme {
    Basic,
    Bearer { realm: String, service: String },
}

/// A scheme, and the scope that the token lacked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Challenge {
    scheme: Scheme,
    wider_scope: Option<String>,
}

impl Challenge {
    /// RFC 9110, section 11.6.1: challenges of a header line; parameter names in any case, the first of several counts.
    fn first_supported(line: &str) -> Option<Self> {
        let mut scanner = Scanner(line);
        loop {
            scanner.skip(&[' ', '\t', ',']);
            let scheme = scanner.token()?.to_ascii_lowercase();
            let mut parameters = HashMap::new();
            loop {
                scanner.skip(&[' ', '\t', ',']);
                let start = scanner.0;
                match scanner.parameter() {
                    Some((name, value)) => {
                        parameters.entry(name.to_ascii_lowercase()).or_insert(value);
                    }
                    None => {
                        scanner.0 = start;
                        break;
                    }
                }
            }
            if let Some(challenge) = Self::supported(&scheme, parameters) {
                return Some(challenge);
            }
            // What is neither parameter nor scheme is a token68 or garbage: go on behind the next comma.
            if scanner.clone().token().is_none() {
                scanner.0 = scanner.0.split_once(',')?.1;
            }
        }
    }

    fn supported(scheme: &str, mut parameters: HashMap<String, String>) -> Option<Self> {
        match scheme {
            "basic" => Some(Self { scheme: Scheme::Basic, wider_scope: None }),
            "bearer" => {
                let lacks_scope = parameters.get("error").is_some_and(|e| e == "insufficient_scope");
                let wider_scope = parameters.remove("scope").filter(|scope| lacks_scope && !scope.is_empty());
                let realm = parameters.remove("realm")?;
                let service = parameters.remove("service").unwrap_or_default();
                Some(Self { scheme: Scheme::Bearer { realm, service }, wider_scope })
            }
            _ => None,
        }
    }

    /// Whether another request may have another answer: the same credentials are not shown twice in vain.
    fn is_worth_trying(
        &self,
        used: Option<&Authorization>,
        credentials: Option<&Credentials>,
        scopes: &[String],
    ) -> bool {
        let asks_for_more = self.wider_scope.as_ref().is_some_and(|scope| !scopes.contains(scope));
        match (used, &self.scheme) {
            (None, Scheme::Basic) => credentials.is_some_and(has_password),
            (None, Scheme::Bearer { .. }) => true,
            (Some(used), scheme) => used.scheme != *scheme || asks_for_more || !used.fresh,
        }
    }
}

/// Reads the parts of a structured header from its front.
#[derive(Clone)]
struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    fn skip(&mut self, chars: &[char]) {
        self.0 = self.0.trim_start_matches(chars);
    }

    /// RFC 9110, section 5.6.2.
    fn token(&mut self) -> Option<&'a str> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let (token, rest) = self.0.split_at(self.0.find(|c| !is_token(c)).unwrap_or(self.0.len()));
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// `name=value` or `name="value"`.
    fn parameter(&mut self) -> Option<(&'a str, String)> {
        let name = self.token()?;
        self.skip(&[' ', '\t']);
        self.0 = self.0.strip_prefix('=')?;
        self.skip(&[' ', '\t']);
        let value = match self.0.strip_prefix('"') {
            Some(quoted) => {
                self.0 = quoted;
                self.rest_of_quoted()?
            }
            None => self.token()?.to_owned(),
        };
        self.skip(&[' ', '\t']);
        (self.0.is_empty() || self.0.starts_with([',', ';'])).then_some((name, value))
    }

    fn rest_of_quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut chars = self.0.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => value.push(chars.next()?),
                other => value.push(other),
            }
        }
        self.0 = chars.as_str();
        Some(value)
    }
}

/// What is remembered of a registry's challenge.
#[derive(Clone, Debug)]
struct Known {
    scheme: Scheme,
    /// The class of the address that sent it.
    class: Class,
}

/// Everything on which a token depends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TokenKey {
    registry: String,
    realm: String,
    service: String,
    scopes: Vec<String>,
    credentials: Option<Digest>,
}

#[derive(Clone, Debug)]
struct Token {
    secret: Secret,
    expires: Instant,
}

impl Token {
    /// Distribution token specification, "Token Response Fields"; at least 60 seconds of life (rule H-3).
    fn parse(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            token: Option<Secret>,
            access_token: Option<Secret>,
            expires_in: Option<i64>,
        }
        let fields: Fields = serde_json::from_slice(body).ok()?;
        let secret = [fields.token, fields.access_token].into_iter().flatten().find(|t| !t.expose().is_empty())?;
        let seconds = u64::try_from(fields.expires_in.unwrap_or(0)).unwrap_or(0).clamp(60, TOKEN_SECONDS);
        Some(Self { secret, expires: Instant::now().checked_add(Duration::from_secs(seconds))? })
    }
}

/// What a request shows to the registry.
struct Authorization {
    header: HeaderValue,
    scheme: Scheme,
    /// Whether it was made for this request, so that there is none better.
    fresh: bool,
    secrets: Vec<Secret>,
}

/// An answer other than 200.
struct Refusal {
    status: StatusCode,
    said: Option<OciError>,
    text: String,
    had_credentials: bool,
}

impl Refusal {
    /// Whether it says that a manifest does not exist (rule A-3). A 401 never does.
    fn is_missing(&self) -> bool {
        if !self.status.is_client_error()
            || matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS)
        {
            return false;
        }
        match &self.said {
            None => self.status == StatusCode::NOT_FOUND,
            Some(OciError { code: None, .. }) => false,
            Some(OciError { code: Some(code), message }) => {
                let is_unknown_code = code == "UNKNOWN" || !REGISTERED_CODES.contains(&code.as_str());
                code == "MANIFEST_UNKNOWN" || is_unknown_code && message.to_lowercase().contains("not found")
            }
        }
    }

    fn into_error(self, visit: &Visit<'_>) -> Error {
        let registry = visit.registry.clone();
        let mut detail = format!("{}: {self}", visit.waiting_for);
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                if !self.had_credentials {
                    detail.push_str(" (no credentials for it were found)");
                }
                Error::RegistryAuth { registry, detail }
            }
            StatusCode::TOO_MANY_REQUESTS => Error::RegistryUnavailable { registry, detail },
            status if status.is_server_error() => Error::RegistryUnavailable { registry, detail },
            _ => Error::RegistryProtocol { registry, detail },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status.as_u16())?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ", {}", self.text) }
    }
}

/// The first entry of an OCI error list; distribution-spec, "Error Codes" (rule H-6).
#[derive(Debug, PartialEq, Eq)]
struct OciError {
    /// None if the member is missing, which differs from an unknown code (rule A-3).
    code: Option<String>,
    message: String,
}

impl OciError {
    /// None if the body is no such list, or an empty one.
    fn parse(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Details {
            details: Option<String>,
        }
        #[derive(Deserialize)]
        struct List {
            errors: Option<First>,
        }
        // An older form, which the reference takes for an error of code UNKNOWN.
        if let Ok(Details { details: Some(message) }) = serde_json::from_slice(body)
            && !message.is_empty()
        {
            return Some(Self { code: Some("UNKNOWN".to_owned()), message });
        }
        serde_json::from_slice::<List>(body).ok()?.errors?.0
    }
}

/// The first element of a list; the others are not kept.
struct First(Option<OciError>);

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Entry {
            code: Option<String>,
            message: Option<String>,
        }
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of errors")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<First, A::Error> {
                let first = elements.next_element::<Option<Entry>>()?;
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first.map(|entry| {
                    let entry = entry.unwrap_or(Entry { code: None, message: None });
                    OciError { code: entry.code, message: entry.message.unwrap_or_default() }
                })))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

/// What a certificate directory adds to the system's roots; containers-certs.d(5), rule T-2.
#[derive(Clone, Debug, Default)]
struct Certificates {
    /// The directory, for messages.
    source: Option<PathBuf>,
    roots: Vec<reqwest::Certificate>,
    client: Option<reqwest::Identity>,
}

impl Certificates {
    /// The first directory that exists for this registry counts alone (rule T-1).
    fn search(registry: &str) -> Result<Self, Error> {
        for base in CERTS_D {
            let dir = Path::new(base).join(registry);
            match std::fs::read_dir(&dir) {
                Ok(_) => return Self::read(&dir),
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
                Err(e) => return Err(certificate_error(&dir, &e.to_string())),
            }
        }
        Ok(Self::default())
    }

    fn read(dir: &Path) -> Result<Self, Error> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| certificate_error(dir, &e.to_string()))? {
            paths.push(entry.map_err(|e| certificate_error(dir, &e.to_string()))?.path());
        }
        paths.sort();
        let mut found = Self { source: Some(dir.to_owned()), ..Self::default() };
        for path in &paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.roots.extend(roots(&read_certificate(path)?)),
                Some("cert") => {
                    let mut pair = read_certificate(path)?;
                    pair.push(b'\n');
                    pair.extend(read_certificate(&path.with_extension("key"))?);
                    let identity = reqwest::Identity::from_pem(&pair);
                    let identity =
                        identity.map_err(|_| certificate_error(path, "with its .key it is no key pair"))?;
                    if found.client.replace(identity).is_some() {
                        return Err(certificate_error(dir, "more than one client certificate is not supported"));
                    }
                }
                Some("key") if !paths.contains(&path.with_extension("cert")) => {
                    return Err(certificate_error(path, "the .cert of the same name is missing"));
                }
                Some(_) | None => {}
            }
        }
        Ok(found)
    }

    /// Connections of one registry. The client certificate is a credential: only the configured server sees it.
    fn connect(&self, reach: Reach) -> Result<reqwest::Client, Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .referer(false)
            .no_proxy()
            // Features of reqwest that another crate may switch on: limits are for the bytes as sent.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .tls_version_min(tls::Version::TLS_1_2)
            .tls_certs_merge(self.roots.iter().cloned())
            .dns_resolver(Arc::new(reach));
        if let (Reach::Configured, Some(client)) = (reach, &self.client) {
            builder = builder.identity(client.clone());
        }
        let source = self.source.as_deref().unwrap_or(Path::new("the certificates of the system"));
        builder.build().map_err(|e| {
            certificate_error(source, &causes(&e).last().map(ToString::to_string).unwrap_or_default())
        })
    }
}

/// The certificates of a PEM file that can be roots; anything else is ignored (rule T-2).
fn roots(pem: &[u8]) -> Vec<reqwest::Certificate> {
    let certificates = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    let usable = certificates.filter(|der| RootCertStore::empty().add(der.clone()).is_ok());
    usable.filter_map(|der| reqwest::Certificate::from_der(&der).ok()).collect()
}

fn read_certificate(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = RegularFile::open(path).and_then(|file| file.read(CERTIFICATE_BYTES));
    bytes.map_err(|e| certificate_error(path, &e.to_string()))
}

fn certificate_error(path: &Path, detail: &str) -> Error {
    Error::Certificates { path: path.display().to_string(), detail: detail.to_owned() }
}

/// Where connections may lead (T-29).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reach {
    /// To the server that was configured, whatever its address.
    Configured,
    /// To a server that a server of this class named: to public addresses, and to those of the same class.
    Steered(Class),
}

impl Reach {
    fn allows(self, address: IpAddr) -> bool {
        match (self, Class::of(address)) {
            (Self::Configured, _) | (Self::Steered(_), Class::Public) => true,
            (Self::Steered(_), Class::Reserved) => false,
            (Self::Steered(home), class) => home == class,
        }
    }

    /// Addresses in URLs never come to the resolver.
    fn allows_literal(self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        host.parse().map_or(true, |address| self.allows(address))
    }
}

impl Resolve for Reach {
    /// Checked where connections are made, so that no later change of the name matters.
    fn resolve(&self, name: Name) -> Resolving {
        let reach = *self;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| reach.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(NotAllowed.into());
            }
            let addresses: reqwest::dns::Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

/// A registry named a host that it must not name (T-29).
#[derive(Debug, thiserror::Error)]
#[error("has only addresses to which a registry must not lead")]
struct NotAllowed;

/// What kind of network an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Class {
    LinkLocal,
    Loopback,
    Private,
    Public,
    /// Multicast, broadcast and tunnels that hide another address.
    Reserved,
}

impl Class {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    /// IANA IPv4 Special-Purpose Address Registry.
    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            // Linux connects 0.0.0.0 to itself.
            [0 | 127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18 | 19, ..] => {
                Self::Private
            }
            [192, 0, 0, _] | [224..=255, ..] => Self::Reserved,
            _ => Self::Public,
        }
    }

    /// IANA IPv6 Special-Purpose Address Registry; an embedded IPv4 address counts as itself.
    fn of_v6(address: Ipv6Addr) -> Self {
        let embedded = |high: u16, low: u16| {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Self::Loopback,
            [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
            [0, 0, 0, 0, 0xffff, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
            [0x64, 0xff9b, 1, ..] | [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Private,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0x2001, 0, ..] | [0xff00..=0xffff, ..] => Self::Reserved,
            _ => Self::Public,
        }
    }
}

/// Where a redirect leads, if it may.
fn redirect_target(from: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or("names no place")?;
    let target = from.join(location).map_err(|e| format!("leads to no URL: {e}"))?;
    // Only a lookaside URL can be plain HTTP to begin with.
    if (from.scheme(), target.scheme()) != ("http", "http") {
        check_steered_url(&target)?;
    } else if has_user(&target) {
        return Err("holds a user or password".to_owned());
    }
    Ok(target)
}

/// A URL that the registry names: HTTPS, and no credentials in it.
fn check_steered_url(url: &Url) -> Result<(), String> {
    if url.scheme() != "https" {
        Err("is not https".to_owned())
    } else if has_user(url) {
        Err("holds a user or password".to_owned())
    } else {
        Ok(())
    }
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn same_server(a: &Url, b: &Url) -> bool {
    let server =
        |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    server(a) == server(b)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn has_password(credentials: &Credentials) -> bool {
    !credentials.user.is_empty() && !credentials.password.expose().is_empty()
}

/// RFC 7617.
fn basic(visit: &Visit<'_>, credentials: &Credentials) -> Result<Authorization, Error> {
    let encoded = STANDARD.encode(format!("{}:{}", credentials.user, credentials.password.expose()));
    let header = sensitive(&format!("Basic {encoded}"));
    let header = header.ok_or_else(|| visit.protocol("the credentials do not fit into a header"))?;
    Ok(Authorization { header, scheme: Scheme::Basic, fresh: true, secrets: vec![Secret::new(encoded)] })
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// `application/x-www-form-urlencoded`, as in the query of a URL.
fn form(fields: &[(&str, &str)]) -> String {
    Url::parse_with_params("https://form.invalid/", fields)
        .ok()
        .and_then(|url| url.query().map(str::to_owned))
        .unwrap_or_default()
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
        Algorithm::Sha256 => manifest::digest(bytes).map_err(|e| visit.protocol(&e.to_string()))?,
        algorithm @ (Algorithm::Sha384 | Algorithm::Sha512) => Digest::compute(algorithm, bytes),
    };
    if found == *wanted {
        Ok(())
    } else {
        Err(Error::DigestMismatch { location: visit.waiting_for.clone(), wanted: wanted.clone(), found })
    }
}

fn full_name(image: &Named, reference: &str) -> String {
    let separator = if reference.contains(':') { '@' } else { ':' };
    format!("{}{separator}{reference}", image.name())
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
        other @ (Error::AuthFile { .. }
        | Error::Certificates { .. }
        | Error::Config(_)
        | Error::DigestMismatch { .. }
        | Error::EvidenceTooLarge
        | Error::ImageNotFound { .. }
        | Error::KeyFile { .. }
        | Error::Local { .. }
        | Error::Lookaside { .. }
        | Error::NoMatchingPlatform { .. }
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

/// Remembers a value; a full memory is emptied first.
fn insert<K: Eq + Hash, V>(memory: &Mutex<HashMap<K, V>>, key: K, value: V, most: usize) {
    let mut memory = lock(memory);
    if memory.len() >= most {
        memory.clear();
    }
    memory.insert(key, value);
}

const USER_AGENT: &str = concat!("vouchd/", env!("CARGO_PKG_VERSION"));

/// What rule H-4 accepts.
const MANIFEST_TYPES: [&str; 6] = [
    manifest::OCI_MANIFEST,
    manifest::DOCKER_MANIFEST,
    manifest::DOCKER_SCHEMA1_SIGNED,
    manifest::DOCKER_SCHEMA1,
    manifest::DOCKER_LIST,
    manifest::OCI_INDEX,
];

/// Codes that the reference knows; any other counts as UNKNOWN (rule A-3).
const REGISTERED_CODES: [&str; 19] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "MANIFEST_UNVERIFIED",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "PAGINATION_NUMBER_INVALID",
    "RANGE_INVALID",
    "SIZE_INVALID",
    "TAG_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNAVAILABLE",
    "UNSUPPORTED",
];

/// Classic directories of rule T-1.
const CERTS_D: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// As for all configuration files, design decision 6.
const CERTIFICATE_BYTES: usize = 4 << 20;

/// Rule H-10.
const TOKEN_BYTES: usize = 1 << 20;

/// Rule H-10.
const ERROR_BYTES: usize = 1 << 20;

/// Longest life of a token here, whatever it says: a day.
const TOKEN_SECONDS: u64 = 86_400;

/// Rule H-9.
const REDIRECTS: usize = 10;

/// Rule H-7.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// As many as attachment layers are fetched at a time.
const IDLE_CONNECTIONS: usize = 4;

/// Registries, tokens and challenges remembered at a time: a host uses a handful.
const CONNECTIONS: usize = 64;
const TOKENS: usize = 256;
const CHALLENGES: usize = 256;

/// Most characters of a registry's own words in an error.
const EXCERPT_CHARS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_class_of_their_network() {
        for (address, class) in [
            ("8.8.8.8", Class::Public),
            ("172.15.0.1", Class::Public),
            ("172.16.0.1", Class::Private),
            ("172.31.255.255", Class::Private),
            ("10.0.0.1", Class::Private),
            ("192.168.0.1", Class::Private),
            ("100.64.0.1", Class::Private),
            ("169.254.169.254", Class::LinkLocal),
            ("127.0.0.1", Class::Loopback),
            ("0.0.0.0", Class::Loopback),
            ("224.0.0.1", Class::Reserved),
            ("255.255.255.255", Class::Reserved),
            ("2600::1", Class::Public),
            ("::", Class::Loopback),
            ("::1", Class::Loopback),
            ("::ffff:127.0.0.1", Class::Loopback),
            ("::ffff:8.8.8.8", Class::Public),
            ("::127.0.0.1", Class::Loopback),
            ("::ffff:0:10.0.0.1", Class::Private),
            ("64:ff9b::a9fe:a9fe", Class::LinkLocal),
            ("64:ff9b:1::1", Class::Private),
            ("2002:7f00:1::", Class::Loopback),
            ("2001:0:1::1", Class::Reserved),
            ("fd00::1", Class::Private),
            ("fec0::1", Class::Private),
            ("fe80::1", Class::LinkLocal),
            ("febf::1", Class::LinkLocal),
            ("ff02::1", Class::Reserved),
        ] {
            assert_eq!(Class::of(address.parse().unwrap()), class, "{address}");
        }
    }

    #[test]
    fn a_registry_leads_to_public_addresses_and_to_its_own_kind() {
        let classes = [Class::LinkLocal, Class::Loopback, Class::Private, Class::Public];
        let address = |class| match class {
            Class::LinkLocal => "https://169.254.0.1/",
            Class::Loopback => "https://[::1]/",
            Class::Private => "https://0xa000001/",
            Class::Public => "https://8.8.8.8/",
            Class::Reserved => "https://224.0.0.1/",
        };
        for home in classes {
            for there in classes {
                let url = Url::parse(address(there)).unwrap();
                let allowed = there == Class::Public || there == home;
                assert_eq!(Reach::Steered(home).allows_literal(&url), allowed, "{home:?} to {there:?}");
                assert!(Reach::Configured.allows_literal(&url));
            }
            let reserved = Url::parse(address(Class::Reserved)).unwrap();
            assert!(!Reach::Steered(home).allows_literal(&reserved));
        }
        assert!(!Reach::Steered(Class::Reserved).allows("224.0.0.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn names_are_checked_when_they_are_resolved() {
        let localhost = || "localhost".parse::<Name>().unwrap();
        for home in [Class::Public, Class::Private, Class::LinkLocal, Class::Reserved] {
            assert!(Reach::Steered(home).resolve(localhost()).await.is_err(), "{home:?}");
        }
        for reach in [Reach::Configured, Reach::Steered(Class::Loopback)] {
            assert!(reach.resolve(localhost()).await.unwrap().next().is_some(), "{reach:?}");
        }
    }

    #[test]
    fn the_first_supported_challenge_counts() {
        let bearer = |realm: &str, service: &str, wider_scope: Option<&str>| {
            Some(Challenge {
                scheme: Scheme::Bearer { realm: realm.into(), service: service.into() },
                wider_scope: wider_scope.map(str::to_owned),
            })
        };
        let basic = Some(Challenge { scheme: Scheme::Basic, wider_scope: None });
        for (line, challenge) in [
            ("Basic realm=\"r\"", basic.clone()),
            ("basic", basic.clone()),
            ("BASIC realm=r, Bearer realm=\"x\"", basic.clone()),
            (
                "Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:a:pull\"",
                bearer("https://a/t", "s", None),
            ),
            ("Bearer realm=\"https://a/t\"", bearer("https://a/t", "", None)),
            ("bearer REALM = \"a\\\"b,c\" , Service=s", bearer("a\"b,c", "s", None)),
            ("Bearer realm=\"a\",realm=\"b\"", bearer("a", "", None)),
            ("Bearer realm=\"a\",error=\"insufficient_scope\",scope=\"x y\"", bearer("a", "", Some("x y"))),
            ("Bearer realm=\"a\",error=\"invalid_token\",scope=\"x\"", bearer("a", "", None)),
            ("Negotiate, Basic realm=\"r\"", basic.clone()),
            ("NTLM abc==, Bearer realm=\"a\"", bearer("a", "", None)),
            ("Digest nonce=\"Basic\", Basic", basic),
            ("Bearer", None),
            ("Bearer realm=\"a", None),
            ("Negotiate", None),
            ("", None),
            (",,,", None),
            ("\"", None),
            ("= = =", None),
        ] {
            assert_eq!(Challenge::first_supported(line), challenge, "{line}");
        }
    }

    #[test]
    fn what_does_not_exist_is_told_from_what_failed() {
        let list = |code: &str, message: &str| {
            format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"{message}\"}}]}}")
        };
        for (status, body, missing) in [
            (404, list("MANIFEST_UNKNOWN", "manifest unknown"), true),
            (400, list("MANIFEST_UNKNOWN", ""), true),
            (401, list("MANIFEST_UNKNOWN", ""), false),
            (429, list("MANIFEST_UNKNOWN", ""), false),
            (500, list("MANIFEST_UNKNOWN", ""), false),
            (302, list("MANIFEST_UNKNOWN", ""), false),
            (404, list("UNKNOWN", "Not Found"), true),
            (404, list("UNKNOWN", "artifact x NOT FOUND here"), true),
            (404, list("UNKNOWN", "unknown error"), false),
            (404, list("NOT_FOUND", "artifact not found"), true),
            (404, list("", "not found"), true),
            (404, list("NAME_UNKNOWN", "repository not found"), false),
            (404, list("DENIED", "not found"), false),
            (403, list("DENIED", ""), false),
            (404, "{\"errors\":[{\"message\":\"not found\"}]}".into(), false),
            (404, "{\"errors\":[null]}".into(), false),
            (404, "{\"errors\":[]}".into(), true),
            (404, "{\"errors\":null}".into(), true),
            (404, "{\"errors\":[{\"code\":5}]}".into(), true),
            (404, "{\"details\":\"it was not found\"}".into(), true),
            (404, "{\"details\":\"go away\"}".into(), false),
            (404, "{}".into(), true),
            (404, "[]".into(), true),
            (404, "404 page not found\n".into(), true),
            (404, String::new(), true),
            (403, "not found".into(), false),
            (410, String::new(), false),
        ] {
            let refusal = Refusal {
                status: StatusCode::from_u16(status).unwrap(),
                said: OciError::parse(body.as_bytes()),
                text: String::new(),
                had_credentials: false,
            };
            assert_eq!(refusal.is_missing(), missing, "{status} {body}");
        }
    }

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
    fn redirects_stay_on_https_and_carry_no_credentials() {
        for (from, location, target) in [
            ("https://h/a/b", "/c", Some("https://h/c")),
            ("https://h/a/b", "https://other:1/x?y#z", Some("https://other:1/x?y#z")),
            ("https://h/a", "//other/x", Some("https://other/x")),
            ("https://h/a", "http://h/a", None),
            ("https://h/a", "ftp://h/a", None),
            ("https://h/a", "data:x", None),
            ("https://h/a", "https://u@h/a", None),
            ("https://h/a", "https://:p@h/a", None),
            ("https://h/a", "https://[::1/a", None),
            ("http://h/a", "/b", Some("http://h/b")),
            ("http://h/a", "https://h/b", Some("https://h/b")),
            ("http://h/a", "http://u:p@h/b", None),
        ] {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(location).unwrap())]);
            let found = redirect_target(&Url::parse(from).unwrap(), &headers);
            assert_eq!(found.as_ref().ok().map(Url::as_str), target, "{from} to {location}");
        }
        assert!(redirect_target(&Url::parse("https://h/").unwrap(), &HeaderMap::new()).is_err());
    }

    #[test]
    fn servers_are_the_same_with_scheme_host_and_port() {
        for (a, b, same) in [
            ("https://h/a", "https://h:443/b", true),
            ("https://H/a", "https://h/b", true),
            ("https://h/", "https://h:444/", false),
            ("https://h/", "http://h:443/", false),
            ("https://h/", "https://h.h/", false),
            ("https://h/", "https://h./", false),
        ] {
            assert_eq!(same_server(&Url::parse(a).unwrap(), &Url::parse(b).unwrap()), same, "{a} {b}");
        }
    }

    #[test]
    fn tokens_live_at_least_a_minute() {
        for (body, token, seconds) in [
            ("{\"token\":\"t\"}", "t", 60),
            ("{\"access_token\":\"a\",\"expires_in\":300}", "a", 300),
            ("{\"token\":\"t\",\"access_token\":\"a\",\"expires_in\":-5}", "t", 60),
            ("{\"token\":\"\",\"access_token\":\"a\",\"expires_in\":99999999}", "a", TOKEN_SECONDS),
        ] {
            let before = Instant::now();
            let parsed = Token::parse(body.as_bytes()).unwrap();
            assert_eq!(parsed.secret.expose(), token);
            let life = parsed.expires - before;
            assert!((seconds..=seconds + 5).contains(&life.as_secs()), "{body}: {life:?}");
        }
        for body in ["", "{}", "[]", "{\"token\":5}", "{\"token\":null}", "<html>"] {
            assert!(Token::parse(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(form(&[("a", "x&y=z +"), ("b", "ä")]), "a=x%26y%3Dz+%2B&b=%C3%A4");
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
