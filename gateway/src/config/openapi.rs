//! `openapi` of a route: the document that its requests have to keep to.

use std::{path::PathBuf, sync::Arc};

use super::{
    Mode,
    compile::Compiler,
    parse::{existing, parse_prefix},
    raw::{
        RawConfig,
        openapi::{RawOpenApi, RawOpenApiMode},
    },
};
use crate::openapi::{Api, compile, document::MOST};

/// A document, and what becomes of requests that break it.
#[derive(Debug)]
pub struct OpenApi {
    /// The document.
    pub api: Api,
    /// `Detect` or `Block`.
    pub mode: Mode,
}

impl Compiler {
    /// The document of the route at `path`.
    pub(super) fn openapi(&mut self, raw: &RawOpenApi, path: &str) -> Option<Arc<OpenApi>> {
        let at = format!("{path}.openapi");
        let Some(file) = raw.file.as_deref() else {
            self.mistakes.add(&at, "needs \"file\", an OpenAPI 3 document");
            return None;
        };
        let base = raw.base.as_deref().map(parse_prefix).transpose();
        let base = base.unwrap_or_else(|message| {
            self.mistakes.add(&format!("{at}.base"), message);
            None
        });
        let mode = match raw.mode {
            Some(RawOpenApiMode::Block) => Mode::Block,
            Some(RawOpenApiMode::Detect) | None => Mode::Detect,
        };
        match read(file).and_then(|text| {
            compile::load(&text, file, base.as_deref())
                .map_err(|mistakes| format!("cannot be used:\n{mistakes}"))
        }) {
            Ok((api, remarks)) => {
                let place = format!("{at}.file");
                let remarks = remarks.into_iter().map(|remark| (place.clone(), format!("{file}: {remark}")));
                self.warnings.extend(remarks);
                Some(Arc::new(OpenApi { api, mode }))
            }
            Err(message) => {
                self.mistakes.add(&format!("{at}.file"), message);
                None
            }
        }
    }
}

fn read(file: &str) -> Result<String, String> {
    let path = existing(file)?;
    let failed = |error: std::io::Error| format!("{file:?}: {error}");
    if std::fs::metadata(&path).map_err(failed)?.len() > MOST {
        return Err(format!("{file:?} has more than {} MiB", MOST >> 20));
    }
    std::fs::read_to_string(&path).map_err(failed)
}

/// Documents that are read beside the configuration.
pub(super) fn documents(raw: &RawConfig) -> impl Iterator<Item = PathBuf> {
    raw.routes.iter().filter_map(|route| Some(PathBuf::from(route.openapi.as_ref()?.file.as_ref()?)))
}
