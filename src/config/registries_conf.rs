//! provisional
use super::{Environment, Error};
use crate::nonempty::NonEmpty;
use crate::reference::Named;
use std::path::PathBuf;
/// p
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistriesConfSource {
    /// p
    Explicit(PathBuf),
    /// p
    Search(Environment),
}
/// p
#[derive(Clone, Debug)]
pub struct RegistriesConf;
/// p
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// p
    pub image: Named,
    /// p
    pub insecure: bool,
    /// p
    pub is_mirror: bool,
    /// p
    pub blocked: Option<Error>,
}
impl RegistriesConf {
    /// p
    pub fn load(_: &RegistriesConfSource) -> Result<Self, Error> {
        Ok(Self)
    }
    /// p
    pub fn endpoints(&self, image: &Named) -> Result<NonEmpty<Endpoint>, Error> {
        Ok(NonEmpty::one(Endpoint { image: image.clone(), insecure: false, is_mirror: false, blocked: None }))
    }
}
