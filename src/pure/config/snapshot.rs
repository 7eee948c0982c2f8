//! The config as it is served: one snapshot, which a request holds from its start to its end. A reload swaps the
//! `Arc` for the requests that follow.

use std::collections::BTreeMap;

use crate::pure::boot::served_names::Served;
use crate::pure::catalog::Catalog;
use crate::pure::catalog::image_status::Shelf;
use crate::pure::catalog::server::{Server, Serving};
use crate::pure::image_source::Wanted;
use crate::pure::script::templates::Templates;

pub use super::problem::{Problem, Severity};

/// Everything that a request needs to know, at one moment.
#[derive(Debug)]
pub struct Config {
    /// Where and how we serve.
    pub server: Server,
    /// What there is to boot, and who boots it.
    pub catalog: Catalog,
    /// What is to be fetched for each image that is not the operator's own, by the image's name.
    pub wanted: BTreeMap<String, Vec<Wanted>>,
    /// The boot scripts.
    pub templates: Templates,
    /// What is wrong but does not keep the rest from serving: faults and warnings.
    pub problems: Vec<Problem>,
}

impl Config {
    /// What a protocol answers from.
    pub fn serving(&self) -> Serving<'_> {
        Serving { server: &self.server, catalog: &self.catalog }
    }

    /// What the operator wrote or keeps that cannot be used.
    pub fn faults(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.severity == Severity::Fault)
    }
}

/// What a request is answered from: taken once, at its start.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The config.
    pub config: &'a Config,
    /// Which of the images that are fetched are here.
    pub shelf: &'a Shelf,
}

impl<'a> Snapshot<'a> {
    /// What files are served from.
    pub fn served(self) -> Served<'a> {
        let Self { config, shelf } = self;
        Served { catalog: &config.catalog, naming: config.server.naming(), shelf }
    }
}
