//! [`Action`]: what users other than root may have done, as polkit(8) says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zbus::fdo;
use zbus::proxy::CacheProperties;
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

use crate::engine::{LONGEST_TIMEOUT, Turns};
use crate::fetch::Asker;

use super::Error;
use super::caller::Caller;

/// How long polkit may take if it asks nobody.
const PATIENCE: Duration = Duration::from_secs(10);

/// An action of `dbus/org.vouchd.Verifier1.policy`, where each has its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What applies to an image, and whether a policy can be used: nothing that is secret.
    Explain,
    /// Opening the files that a policy of the caller names, which tells whether they exist.
    InspectPaths,
    /// Reading the configuration now.
    Reload,
    /// Showing registries the credentials of this host.
    UseCredentials,
    /// A verdict, for which registries are asked.
    Verify,
    /// A verdict that may be good without any signature.
    VerifyInsecure,
}

/// What polkit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    /// If it may ask.
    Perhaps,
    No,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 6] = [
        Self::Explain,
        Self::InspectPaths,
        Self::Reload,
        Self::UseCredentials,
        Self::Verify,
        Self::VerifyInsecure,
    ];

    /// Its name.
    pub fn id(self) -> &'static str {
        match self {
            Self::Explain => "org.vouchd.Verifier1.explain",
            Self::InspectPaths => "org.vouchd.Verifier1.inspect-paths",
            Self::Reload => "org.vouchd.Verifier1.reload",
            Self::UseCredentials => "org.vouchd.Verifier1.use-credentials",
            Self::Verify => "org.vouchd.Verifier1.verify",
            Self::VerifyInsecure => "org.vouchd.Verifier1.verify-insecure",
        }
    }

    /// Whether the caller may, who is perhaps asked for a password. Root may, without polkit.
    pub(super) async fn authorize(self, caller: &Caller<'_>, turns: &Turns) -> Result<(), Error> {
        match self.ask(caller, turns, caller.is_interactive).await? {
            Answer::Yes => Ok(()),
            Answer::Perhaps if !caller.is_interactive => Err(Error::authorization_required(self.id())),
            Answer::No | Answer::Perhaps => {
                let message = format!("polkit does not allow uid {} the action {}", caller.uid, self.id());
                Err(Error::access_denied(&message, "ask as root, or see polkit(8) for how to allow it"))
            }
        }
    }

    /// Whether the caller may without being asked for anything.
    pub(super) async fn is_allowed(self, caller: &Caller<'_>, turns: &Turns) -> Result<bool, Error> {
        Ok(self.ask(caller, turns, false).await? == Answer::Yes)
    }

    async fn ask(self, caller: &Caller<'_>, turns: &Turns, may_interact: bool) -> Result<Answer, Error> {
        let _turn = match caller.asker {
            Asker::Owner => return Ok(Answer::Yes),
            Asker::User(_) => turns.take(caller.asker)?,
        };
        let asking = self.check(caller, may_interact);
        let patience = if may_interact { LONGEST_TIMEOUT } else { PATIENCE };
        match tokio::time::timeout(patience, asking).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_absent(&error) => Err(Error::access_denied(
                "only root may ask: polkit, which says who else may, does not run",
                "ask as root, or install polkit",
            )),
            Ok(Err(error)) => Err(Error::access_denied(
                &format!("polkit gave no answer: {error}"),
                "ask as root, or see \"systemctl status polkit\"",
            )),
            Err(_) => Err(Error::access_denied("polkit gave no answer in time", "try again, or ask as root")),
        }
    }

    /// org.freedesktop.PolicyKit1.Authority, CheckAuthorization: about the connection, so that no process can take the
    /// place of another meanwhile.
    async fn check(self, caller: &Caller<'_>, may_interact: bool) -> zbus::Result<Answer> {
        let Ok(subject) = Subject::new_for_message_header(caller.header) else { return Ok(Answer::No) };
        let polkit =
            AuthorityProxy::builder(caller.connection).cache_properties(CacheProperties::No).build().await?;
        let flags = if may_interact {
            CheckAuthorizationFlags::ALLOW_USER_INTERACTION
        } else {
            CheckAuthorizationFlags::empty()
        };
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let id = format!("vouchd-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut question = Question { polkit: may_interact.then(|| polkit.clone()), id };
        let result =
            polkit.check_authorization(&subject, self.id(), &HashMap::new(), flags, &question.id).await;
        question.polkit = None;
        let result = result?;
        Ok(match (result.is_authorized, result.is_challenge) {
            (true, _) => Answer::Yes,
            (false, true) => Answer::Perhaps,
            (false, false) => Answer::No,
        })
    }
}

/// A question that somebody may be answering; it is withdrawn when nobody waits for the answer any more.
struct Question {
    polkit: Option<AuthorityProxy<'static>>,
    id: String,
}

impl Drop for Question {
    fn drop(&mut self) {
        let Some(polkit) = self.polkit.take() else { return };
        let id = std::mem::take(&mut self.id);
        tokio::spawn(async move {
            let withdrawing = polkit.cancel_check_authorization(&id);
            // Whoever answers it all the same answers to nobody.
            let _ = tokio::time::timeout(PATIENCE, withdrawing).await;
        });
    }
}

/// Whether nothing on the bus is polkit, or can be started to be.
fn is_absent(error: &zbus::Error) -> bool {
    if let zbus::Error::FDO(error) = error {
        return matches!(**error, fdo::Error::NameHasNoOwner(_) | fdo::Error::ServiceUnknown(_));
    }
    let zbus::Error::MethodError(name, _, _) = error else { return false };
    matches!(
        name.as_str(),
        "org.freedesktop.DBus.Error.NameHasNoOwner" | "org.freedesktop.DBus.Error.ServiceUnknown"
    )
}
