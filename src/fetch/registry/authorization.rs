//! [`Authorization`]: what a request shows to the registry, and the tokens that it takes (rule H-3).

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use crate::digest::Digest;
use crate::fetch::Error;
use crate::fetch::credentials::{Credentials, Secret};
use crate::fetch::registry::address::{Class, check_steered_url};
use crate::fetch::registry::challenge::Scheme;
use crate::fetch::registry::refusal::Refusal;
use crate::fetch::registry::visit::Visit;
use crate::fetch::registry::{Ask, Client, excerpt, insert, lock};

/// What a request shows to the registry.
pub(super) struct Authorization {
    pub(super) header: HeaderValue,
    pub(super) scheme: Scheme,
    /// Whether it was made for this request, so that there is none better.
    pub(super) fresh: bool,
    pub(super) secrets: Vec<Secret>,
}

/// The last challenge of each registry, by which requests begin with what it probably wants.
pub(super) type Hints = Mutex<HashMap<HintKey, Known>>;

/// Tokens for the scopes that vouchd itself asks for.
pub(super) type Tokens = Mutex<HashMap<TokenKey, Token>>;

impl Client {
    /// What the registry wanted the last time, if it has the same certificates.
    pub(super) async fn hint(&self, visit: &Visit<'_>) -> Result<Option<Known>, Error> {
        let key = self.hint_key(visit).await?;
        Ok(lock(&self.hints).get(&key).cloned())
    }

    /// What to send to the registry. A challenge that leads to something is a hint for later requests.
    pub(super) async fn authorize(
        &self,
        visit: &Visit<'_>,
        known: Option<&Known>,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<Option<Authorization>, Error> {
        let Some(known) = known else { return Ok(None) };
        let key = self.hint_key(visit).await?;
        let made = self.comply(visit, known, scopes, credentials).await;
        match made {
            Ok(_) => insert(&self.hints, key, known.clone(), HINTS),
            Err(_) => {
                lock(&self.hints).remove(&key);
            }
        }
        made
    }

    pub(super) async fn hint_key(&self, visit: &Visit<'_>) -> Result<HintKey, Error> {
        let trust = self.trust(visit).await?.id.clone();
        let Visit { insecure, client_certificate, guarded, .. } = *visit;
        Ok(HintKey { registry: visit.registry.clone(), insecure, client_certificate, guarded, trust })
    }

    async fn comply(
        &self,
        visit: &Visit<'_>,
        known: &Known,
        scopes: &[String],
        credentials: Option<&Credentials>,
    ) -> Result<Option<Authorization>, Error> {
        let Scheme::Bearer { realm, service } = &known.scheme else {
            return credentials.filter(|c| has_password(c)).map(|c| basic(visit, c)).transpose();
        };
        let key = TokenKey {
            asked: self.hint_key(visit).await?,
            realm: realm.clone(),
            service: service.clone(),
            scopes: scopes.to_vec(),
            credentials: credentials.map(Credentials::fingerprint),
        };
        let cached = lock(&self.tokens).get(&key).filter(|t| Instant::now() < t.expires).cloned();
        let fresh = cached.is_none();
        let token = match cached {
            Some(token) => token,
            None => self.fetch_token(visit, &key, known.class, credentials).await?,
        };
        if fresh {
            self.remember_token(key, token.clone());
        }
        let scheme = known.scheme.clone();
        Ok(Some(Authorization { header: token.header, scheme, fresh, secrets: vec![token.secret] }))
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
        // A registry that speaks plain HTTP has such a token server too; no secret ever goes there.
        let plain = (visit.home.scheme(), realm.scheme()) == ("http", "http") && credentials.is_none();
        check_steered_url(&realm, plain)
            .map_err(|detail| visit.protocol(&format!("its token realm {detail}")))?;
        let host = excerpt(realm.host_str().unwrap_or_default());
        let visit = visit.instead_for(format!("a token from {host}"));
        let mut ask = Ask { steered_from: Some(class), ..Ask::to(realm) };
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
                ask.authorization = Some(basic(&visit, credentials)?.header);
            }
        }
        let showed_secret = ask.form.is_some() || ask.authorization.is_some();
        let answer = self.exchange(&visit, ask).await?;
        if answer.response.status() != StatusCode::OK {
            let refusal = if showed_secret {
                Refusal::read_code(&visit, answer.response).await?
            } else {
                Refusal::read(&visit, answer.response, None, credentials).await?
            };
            return Err(refusal.into_error(&visit));
        }
        let body = visit.read(answer.response, TOKEN_ANSWER_BYTES).await?;
        Token::parse(&body).map_err(|detail| visit.protocol(&format!("its token server sent {detail}")))
    }

    /// Wider scopes are the registry's choice, which could name another one each time.
    fn remember_token(&self, key: TokenKey, token: Token) {
        if key.scopes.len() == 1 {
            lock(&self.tokens).retain(|_, token| Instant::now() < token.expires);
            insert(&self.tokens, key, token, TOKENS);
        }
    }

    pub(super) fn forget_tokens(&self, registry: &str, scopes: &[String]) {
        lock(&self.tokens).retain(|key, _| key.asked.registry != registry || key.scopes != scopes);
    }
}

/// What is remembered of a registry's challenge.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) scheme: Scheme,
    /// The class of the address that sent it.
    pub(super) class: Class,
}

/// Everything on which a hint depends: who was withdrawn may have sent it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HintKey {
    registry: String,
    /// What a server said that proved nothing counts only where none needs to.
    insecure: bool,
    /// What it said to this host's client certificate is for nobody else (T-25).
    client_certificate: bool,
    /// Where it led root, it leads no user (T-29).
    guarded: bool,
    trust: Digest,
}

/// Everything on which a token depends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    asked: HintKey,
    realm: String,
    service: String,
    scopes: Vec<String>,
    credentials: Option<Digest>,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    secret: Secret,
    header: HeaderValue,
    expires: Instant,
}

impl Token {
    /// Distribution token specification, "Token Response Fields"; at least 60 seconds of life (rule H-3).
    fn parse(body: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Fields {
            token: Option<Secret>,
            access_token: Option<Secret>,
            expires_in: Option<i64>,
        }
        let fields: Fields = serde_json::from_slice(body).map_err(|_| "no token")?;
        let mut tokens = [fields.token, fields.access_token].into_iter().flatten();
        let secret = tokens.find(|token| !token.expose().is_empty()).ok_or("no token")?;
        if secret.expose().len() > TOKEN_BYTES {
            return Err("a token that is too long");
        }
        let header = format!("Bearer {}", secret.expose());
        let header = sensitive(&header).ok_or("a token that does not fit into a header")?;
        let seconds = u64::try_from(fields.expires_in.unwrap_or(0)).unwrap_or(0).clamp(60, TOKEN_SECONDS);
        let expires = Instant::now().checked_add(Duration::from_secs(seconds)).ok_or("no token")?;
        Ok(Self { secret, header, expires })
    }
}

pub(super) fn has_password(credentials: &Credentials) -> bool {
    !credentials.user.is_empty() && !credentials.password.expose().is_empty()
}

/// RFC 7617.
fn basic(visit: &Visit<'_>, credentials: &Credentials) -> Result<Authorization, Error> {
    let pair = format!("{}:{}", credentials.user, credentials.password.expose());
    let header = sensitive(&format!("Basic {}", STANDARD.encode(&pair)));
    let header = header.ok_or_else(|| visit.protocol("the credentials do not fit into a header"))?;
    Ok(Authorization { header, scheme: Scheme::Basic, fresh: true, secrets: vec![Secret::new(pair)] })
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

/// Rule H-10.
const TOKEN_ANSWER_BYTES: usize = 1 << 20;

/// Longest token: 16 KiB, more than servers take in a header.
const TOKEN_BYTES: usize = 16 << 10;

/// Longest life of a token here, whatever it says: a day.
const TOKEN_SECONDS: u64 = 86_400;

/// Hints and tokens remembered at a time: a host uses a handful.
const HINTS: usize = 256;
const TOKENS: usize = 256;

#[cfg(test)]
mod tests {
    use crate::fetch::registry::Settings;

    use super::*;

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
            assert!(Token::parse(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[tokio::test]
    async fn tokens_are_kept_until_they_expire_and_only_for_our_own_scope() {
        let client = Client::new(Settings::default());
        let key = |scopes: &[&str]| TokenKey {
            asked: HintKey {
                registry: "r".into(),
                insecure: false,
                client_certificate: true,
                guarded: false,
                trust: Digest::sha256(b""),
            },
            realm: "https://r/".into(),
            service: String::new(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            credentials: None,
        };
        let token = Token::parse(b"{\"token\":\"t\"}").unwrap();
        let expired = Token { expires: Instant::now(), ..token.clone() };
        client.remember_token(key(&["a"]), expired);
        client.remember_token(key(&["b"]), token.clone());
        client.remember_token(key(&["b", "wider"]), token.clone());
        let kept = || lock(&client.tokens).keys().cloned().collect::<Vec<_>>();
        assert_eq!(kept(), [key(&["b"])]);
        for n in 0..2 * TOKENS {
            client.remember_token(key(&[&n.to_string()]), token.clone());
            assert!(kept().len() <= TOKENS);
        }
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(form(&[("a", "x&y=z +"), ("b", "ä")]), "a=x%26y%3Dz+%2B&b=%C3%A4");
    }
}
