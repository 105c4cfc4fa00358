//! Certificates by Fulcio: short-lived, for an e-mail address that an OIDC issuer vouched for (rules C-30 to C-35).

use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Decode, Tag, Tagged};

use super::certificate::{self, Certificate, SUBJECT_ALT_NAME};
use super::identity::{Extension, Part};
use super::names::Names;
use super::rekor::{self, Entry};
use super::{Rejection, Verified, path};

/// Who must have signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::verify) struct Identity<'a> {
    /// The OIDC issuer, byte for byte.
    pub issuer: &'a str,
    /// The e-mail address, byte for byte.
    pub email: &'a str,
}

/// The certificate of a signature that the log has seen while it was valid. Without an identity nobody has judged yet
/// whose it is.
pub(in crate::verify) fn verify(
    entry: &Verified<Entry>,
    annotation: &str,
    chain: Option<&String>,
    authorities: &[Certificate],
    identity: Option<Identity<'_>>,
) -> Result<Certificate, Rejection> {
    let logged = rekor::only_block(annotation.as_bytes()).is_some_and(|der| entry.get().is_of(&der));
    if !logged {
        return Err(Rejection::LogEntryInvalid { detail: "it is for another certificate or key".to_owned() });
    }
    let others = intermediates(chain)?;
    let certificate = leaf(annotation)?;
    let others: Vec<&Certificate> = others.iter().collect();
    // Fulcio marks the names as critical, also where they have forms that do not count here (rule C-33).
    path::check(&certificate, authorities, &others, &[SUBJECT_ALT_NAME], entry.get().time)?;
    if let Some(identity) = identity {
        check_identity(&certificate, identity)?;
    }
    Ok(certificate)
}

/// The one certificate of an annotation (rule C-31).
pub(in crate::verify) fn leaf(annotation: &str) -> Result<Certificate, Rejection> {
    let invalid = |detail| Rejection::SigningCertificateInvalid { detail };
    let found = certificate::all(annotation.as_bytes(), 2).map_err(|e| invalid(e.detail()))?;
    match <[Certificate; 1]>::try_from(found) {
        Ok([certificate]) => Ok(certificate),
        Err(_) => Err(invalid("there must be exactly one")),
    }
}

/// The certificates of a chain annotation but the last, which is taken for the authority's own (rule C-32).
pub(in crate::verify) fn intermediates(chain: Option<&String>) -> Result<Vec<Certificate>, Rejection> {
    let Some(chain) = chain else { return Ok(Vec::new()) };
    let mut found = certificate::all(chain.as_bytes(), certificate::CHAIN)
        .map_err(|e| Rejection::SigningCertificateInvalid { detail: e.detail() })?;
    found.pop();
    Ok(found)
}

/// The recorded issuer and one of the e-mail addresses must be those of the policy (rules C-34, C-35).
fn check_identity(certificate: &Certificate, wanted: Identity<'_>) -> Result<(), Rejection> {
    let issuer = issuer(certificate).map_err(|detail| Rejection::SigningCertificateInvalid { detail })?;
    let names = certificate.extensions.names.as_ref();
    if issuer != wanted.issuer.as_bytes() {
        return Err(Rejection::SignerMismatch {
            part: Part::Issuer,
            found: String::from_utf8_lossy(&issuer).into_owned(),
            wanted: format!("\"{}\"", wanted.issuer),
        });
    }
    if !names.is_some_and(|names| names.include_email(wanted.email)) {
        let list = names.map(Names::list).filter(|list| !list.is_empty());
        return Err(Rejection::SignerMismatch {
            part: Part::Subject,
            found: list.unwrap_or_else(|| "nobody by name".to_owned()),
            wanted: format!("the e-mail address \"{}\"", wanted.email),
        });
    }
    Ok(())
}

/// The OIDC issuer, in two extensions of which the newer is a DER string; if both are there they must agree
/// (rule C-34).
fn issuer(certificate: &Certificate) -> Result<Vec<u8>, &'static str> {
    let new = certificate.extension(Extension::IssuerV2.oid()).map(der_string).transpose()?;
    match (certificate.extension(Extension::Issuer.oid()), new) {
        (Some(old), Some(new)) if old != new => Err("it names two OIDC issuers"),
        (Some(issuer), _) => Ok(issuer.to_vec()),
        (None, Some(issuer)) => Ok(issuer),
        (None, None) => Err("it names no OIDC issuer, so that it is not from Fulcio"),
    }
}

/// The text of a DER string in one of the kinds that can hold a URL.
fn der_string(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    let string = AnyRef::from_der(value).ok().filter(|any| {
        let (bytes, is) = (any.value(), |tag| any.tag() == tag);
        let is_printable = |b: &u8| b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(b);
        is(Tag::Utf8String) && std::str::from_utf8(bytes).is_ok()
            || is(Tag::Ia5String) && bytes.is_ascii()
            || is(Tag::PrintableString) && bytes.iter().all(is_printable)
    });
    string.map(|any| any.value().to_vec()).ok_or("its OIDC issuer is not a DER string")
}
