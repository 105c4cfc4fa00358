//! [`Visit`]: one question to a server, within its deadline and budget.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use reqwest::{Client, Request, Response, Url};
use rustls::CertificateError;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout_at};

use crate::fetch::registry::address::NotAllowed;
use crate::fetch::registry::patience::Patience;
use crate::fetch::registry::trust::Trust;
use crate::fetch::registry::{CONNECT_TIMEOUT, Errand, Proxies, causes, excerpt};
use crate::fetch::{Budget, Error};
use crate::reference::is_domain;

/// What one question needs everywhere: who is asked, for what, and how much it may take.
pub(super) struct Visit<'a> {
    /// Host and port as in image names; its TLS settings count.
    pub(super) registry: String,
    /// The server that was configured. Every other one was named by it or by one that it named.
    pub(super) home: Url,
    pub(super) waiting_for: String,
    /// Whether the configured server need not prove who it is (rule M-9).
    pub(super) insecure: bool,
    /// Whether the configured server may be shown this host's client certificate.
    pub(super) client_certificate: bool,
    /// Whether it is asked for a user who must not reach everything (T-29).
    pub(super) guarded: bool,
    pub(super) proxies: &'a Proxies,
    pub(super) budget: &'a Budget,
    pub(super) deadline: Instant,
    /// Found out when it is first needed, and the same to the end of the question.
    pub(super) trust: OnceCell<Arc<Trust>>,
}

impl<'a> Visit<'a> {
    /// A question to the registry, over TLS.
    pub(super) fn to_registry(errand: &Errand<'a>, waiting_for: String) -> Result<Self, Error> {
        let registry = errand.image.domain().to_owned();
        // Rule H-1.
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { &registry };
        match Url::parse(&format!("https://{host}/")) {
            Ok(home) if is_domain(host) => Ok(Self::to_server(errand, registry, home, waiting_for)),
            Ok(_) | Err(_) => Err(Error::RegistryUnavailable {
                registry,
                detail: "it is no host name with optional port".to_owned(),
            }),
        }
    }

    /// A question to the server at `home`, with the TLS settings of the registry.
    pub(super) fn to_server(errand: &Errand<'a>, registry: String, home: Url, waiting_for: String) -> Self {
        let Errand { insecure, principal, proxies, budget, deadline, .. } = *errand;
        Self {
            registry,
            home,
            waiting_for,
            insecure,
            client_certificate: principal.has_stored_credentials(),
            guarded: principal.is_guarded(),
            proxies,
            budget,
            deadline,
            trust: OnceCell::new(),
        }
    }

    pub(super) fn instead_for(&self, waiting_for: String) -> Self {
        Self {
            registry: self.registry.clone(),
            home: self.home.clone(),
            waiting_for,
            insecure: self.insecure,
            client_certificate: self.client_certificate,
            guarded: self.guarded,
            proxies: self.proxies,
            budget: self.budget,
            deadline: self.deadline,
            trust: self.trust.clone(),
        }
    }

    /// The same question over plain HTTP.
    pub(super) fn over_plain_http(&self) -> Self {
        let mut plain = self.instead_for(self.waiting_for.clone());
        // It fails only for URLs that have no host.
        let _ = plain.home.set_scheme("http");
        plain
    }

    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let timed_out = |_| Error::TimedOut { waiting_for: self.waiting_for.clone() };
        timeout_at(self.deadline, work).await.map_err(timed_out)
    }

    pub(super) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let done = self.within(tokio::task::spawn_blocking(work)).await?;
        done.map_err(|_| self.unavailable("its certificates or credentials could not be read"))
    }

    /// Sends a request, and again if the server is too busy or out of order for the moment (rule H-5).
    ///
    /// One with a body, which holds a secret, is sent once.
    pub(super) async fn send(&self, connection: &Client, request: Request) -> Result<Response, Error> {
        let mut patience = Patience::until(self.deadline);
        let mut next = Some(request);
        while let Some(request) = next.take() {
            let again = request.body().is_none().then(|| request.try_clone()).flatten();
            self.budget.request()?;
            let proxy = self.proxies.of(request.url()).and_then(presentable_proxy);
            let response = self.within(connection.execute(request)).await?;
            let response = response.map_err(|e| self.failed_by_way_of(proxy.as_deref(), &e))?;
            match again.zip(patience.delay(response.status(), response.headers())) {
                None => return Ok(response),
                Some((again, delay)) => {
                    drop(response);
                    self.within(sleep(delay)).await?;
                    next = Some(again);
                }
            }
        }
        Err(self.unavailable("it was not asked"))
    }

    /// Reads a body of at most `limit` bytes.
    pub(super) async fn read(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, Error> {
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

    pub(super) fn failed(&self, error: &reqwest::Error) -> Error {
        self.failed_by_way_of(None, error)
    }

    /// The proxy is named, because it may be what failed.
    fn failed_by_way_of(&self, proxy: Option<&str>, error: &reqwest::Error) -> Error {
        let chain = causes(error);
        let mut last = excerpt(&chain.last().map(ToString::to_string).unwrap_or_default());
        if let Some(told) = chain.iter().find_map(|e| rustls_error(*e)).and_then(in_words) {
            told.clone_into(&mut last);
        }
        if let Some(proxy) = proxy.filter(|_| error.is_connect()) {
            last.push_str(&format!(" (by way of the proxy {proxy})"));
        }
        if chain.iter().any(|e| e.is::<NotAllowed>()) {
            self.protocol(&format!("a host that it names {last}"))
        } else if chain.iter().any(|e| rustls_error(*e).is_some()) {
            Error::Tls { registry: self.registry.clone(), detail: format!("{}: {last}", self.waiting_for) }
        } else if error.is_connect() && error.is_timeout() {
            self.unavailable(&format!("no connection within {} seconds", CONNECT_TIMEOUT.as_secs()))
        } else if error.is_connect() {
            self.unavailable(&format!("no connection: {last}"))
        } else {
            self.unavailable(&last)
        }
    }

    pub(super) fn protocol(&self, detail: &str) -> Error {
        let detail = format!("{}: {}", self.waiting_for, excerpt(detail));
        Error::RegistryProtocol { registry: self.registry.clone(), detail }
    }

    /// What came with status 200 is not what a manifest is like.
    pub(super) fn no_manifest(&self, detail: &str) -> Error {
        let detail = format!("{}: {}", self.waiting_for, excerpt(detail));
        Error::Manifest { registry: self.registry.clone(), detail }
    }

    pub(super) fn unavailable(&self, detail: &str) -> Error {
        let detail = format!("{}: {}", self.waiting_for, excerpt(detail));
        Error::RegistryUnavailable { registry: self.registry.clone(), detail }
    }
}

/// Host and port of a proxy, without its password.
fn presentable_proxy(url: &Url) -> Option<String> {
    Some(match url.port_or_known_default() {
        Some(port) => format!("{}:{port}", url.host_str()?),
        None => url.host_str()?.to_owned(),
    })
}

/// The errors of TLS that administrators meet, in words.
fn in_words(error: &rustls::Error) -> Option<&'static str> {
    if matches!(error, rustls::Error::InvalidMessage(_)) {
        return Some("it does not speak TLS");
    }
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    if matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        Some("its certificate, or that of its authority, has expired, or the clock of this host is wrong")
    } else if matches!(error, CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) {
        Some("its certificate is not valid yet, or the clock of this host is wrong")
    } else if matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
        Some("its certificate is not from an authority that this host trusts for it")
    } else if matches!(error, CertificateError::Other(e) if e.to_string().contains("CaUsedAsEndEntity")) {
        Some("its certificate is its own authority, and not among those that this host trusts for it")
    } else {
        None
    }
}

/// The error of TLS itself; it may be wrapped in several of input and output.
fn rustls_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    let mut inner: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = inner {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(error);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => None,
        };
    }
    None
}
