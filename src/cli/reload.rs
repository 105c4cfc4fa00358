//! `vouchd reload`

use clap::Args;

use crate::dbus;

use super::{Exit, print};

/// Have the daemon read its configuration, and say whether it can be used
#[derive(Args, Debug)]
pub(super) struct Reload {
    /// Use this message bus instead of the system bus
    #[arg(long, value_name = "ADDRESS")]
    bus_address: Option<String>,
}

pub(super) async fn run(command: Reload) -> Exit {
    match dbus::reload(command.bus_address.as_deref()).await {
        Ok(digest) => print::line(&format!("the daemon uses the policy {digest}")),
        Err(error) => {
            print::failure(&format!("{error} [{}]", error.code()));
            print::help(error.help());
            if error.is_configuration() { Exit::Configuration } else { Exit::Undecided }
        }
    }
}
