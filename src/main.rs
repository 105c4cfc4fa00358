//! The `vouchd` command; see vouchd(1).

use std::process::ExitCode;

fn main() -> ExitCode {
    vouchd::cli::main()
}
