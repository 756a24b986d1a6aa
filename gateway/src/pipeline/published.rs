//! The admin API behind a route: the gateway's own authentication has said who calls.

use std::{net::IpAddr, sync::OnceLock};

use axum::Router;
use http::{Request, Response, StatusCode, Uri, request::Parts, uri::PathAndQuery};
use http_body_util::BodyExt;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use crate::{
    auth::Principal,
    body::{Body, RequestBody},
    config::{Limits, Route},
    error::{Fault, Refusal},
    router,
};

/// The admin API, once it is there.
#[derive(Debug, Default)]
pub struct Published(OnceLock<Router>);

/// Who calls the admin API by a route.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// The consumer, or whom its token speaks of.
    pub name: String,
    /// Groups it belongs to.
    pub groups: Vec<String>,
    /// Its address.
    pub from: IpAddr,
}

impl Visitor {
    /// A caller that has proved who it is.
    pub(super) fn new(caller: &Principal, from: IpAddr) -> Self {
        let name = caller.consumer().or(caller.subject()).unwrap_or_default().to_owned();
        Self { name, groups: caller.groups().to_vec(), from }
    }
}

impl Published {
    /// Opens it.
    pub fn open(&self, router: Router) {
        // A second one would be the same.
        let _ = self.0.set(router);
    }

    /// Asks it, under the path behind the route's prefix.
    ///
    /// # Errors
    /// Nobody is known to call, or the API is not there yet.
    pub(super) async fn ask(
        &self,
        route: &Route,
        visitor: Option<Visitor>,
        parts: Parts,
        body: RequestBody,
        limits: &Limits,
    ) -> Result<Response<Body>, Fault> {
        // The configuration sees to it that the route demands to know; this holds even if it did not.
        let visitor = visitor.ok_or_else(|| Refusal::new(StatusCode::FORBIDDEN, "admin_without_caller"))?;
        let router =
            self.0.get().ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "admin_not_there"))?;
        let (body, _) = body.forward(limits);
        let mut request = Request::new(axum::body::Body::new(body));
        *request.method_mut() = parts.method;
        *request.uri_mut() = behind_prefix(route, &parts.uri)?;
        *request.headers_mut() = parts.headers;
        request.extensions_mut().insert(visitor);
        let answered = TowerToHyperService::new(router.clone()).call(request).await;
        let response = answered.unwrap_or_else(|never| match never {});
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

fn behind_prefix(route: &Route, uri: &Uri) -> Result<Uri, Fault> {
    let path = router::without_prefix(route, uri.path());
    let text = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let target = PathAndQuery::try_from(text).map_err(|_| Fault::Malformed("request_target"))?;
    Ok(Uri::from(target))
}
