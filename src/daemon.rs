//! placeholder until the helper writes this file
use crate::engine::Settings;
/// x
pub fn init_logging(){}
/// x
#[derive(Debug)] pub struct Options { /// x
pub bus_address: Option<String>, /// x
pub settings: Settings }
/// x
pub async fn run(_:Options)->Result<(),std::io::Error>{Ok(())}
