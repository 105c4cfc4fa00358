//! placeholder until the helper writes this file
use std::time::Duration; use crate::evaluate::evidence::Question; use crate::report::Report;
/// x
#[derive(Debug)] pub enum ClientError { /// x
NotAvailable(String) }
impl ClientError { /// x
pub fn code(&self)->&str{""} /// x
pub fn help(&self)->&str{""} /// x
pub fn is_configuration(&self)->bool{false} }
impl std::fmt::Display for ClientError { fn fmt(&self,_:&mut std::fmt::Formatter<'_>)->std::fmt::Result{Ok(())} }
/// x
pub async fn evaluate(_:Option<&str>,_:&str,_:&Question,_:Duration)->Result<Report,ClientError>{Err(ClientError::NotAvailable(String::new()))}
