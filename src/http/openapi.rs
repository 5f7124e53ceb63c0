//! The OpenAPI document, made of the endpoints, and Swagger UI to read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::http::header::{ALLOW, CONTENT_ENCODING, LOCATION};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, Resource, ResponseError, web};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Paths, ServerBuilder,
};
use utoipa_swagger_ui::Config;

use super::endpoint::{Content, Endpoint, Tag};
use super::errors::Failure;
use super::{Api, backups, configuration, events, restores, retention, system, verifications};

/// All endpoints.
fn endpoints() -> impl Iterator<Item = Endpoint> {
    let groups = [
        system::endpoints(),
        documentation(),
        configuration::endpoints(),
        backups::endpoints(),
        verifications::endpoints(),
        retention::endpoints(),
        restores::endpoints(),
        events::endpoints(),
    ];
    groups.into_iter().flatten()
}

/// The endpoints of this module.
fn documentation() -> Vec<Endpoint> {
    let get = |path, id, summary| Endpoint::new(Method::GET, path, Tag::System, id, summary);
    vec![
        get("/api-docs/", "api-docs", "OpenAPI specification endpoint.")
            .description("Serves the API documentation in Swagger UI format.")
            .answers(200, "OK", Content::text("text/html"))
            .by(|| async { swagger_ui("index.html") }),
        get("/api-docs/openapi.json", "openapi", "This OpenAPI specification.")
            .answers(200, "OK", Content::object())
            .by(specification),
    ]
}

/// Adds the routes of all endpoints to a server, each below `prefix`.
pub fn routes(prefix: &str, app: &mut web::ServiceConfig) {
    let mut paths: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
    for endpoint in endpoints() {
        paths.entry(endpoint.path).or_default().push(endpoint);
    }
    for (path, endpoints) in paths {
        let mut places = vec![format!("{prefix}{path}")];
        if path == "/" && !prefix.is_empty() {
            places.push(prefix.to_owned());
        }
        let mut resource = Resource::new(places);
        let mut allowed = Vec::new();
        for endpoint in endpoints {
            allowed.extend(endpoint.methods());
            resource = resource.route(endpoint.route);
        }
        let allowed = allowed.join(", ");
        let refuse = move |request: HttpRequest| std::future::ready(method_not_allowed(&request, &allowed));
        app.service(resource.default_service(web::to(refuse)));
    }
    app.route(&format!("{prefix}/api-docs"), web::get().to(redirect));
    app.route(&format!("{prefix}/api-docs/{{file}}"), web::get().to(asset));
}

fn method_not_allowed(request: &HttpRequest, allowed: &str) -> HttpResponse {
    let text = format!("{} {}: the method is not allowed: use {allowed}", request.method(), request.path());
    let mut response = Failure::new(StatusCode::METHOD_NOT_ALLOWED, text).error_response();
    if let Ok(value) = allowed.parse() {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

async fn redirect() -> HttpResponse {
    HttpResponse::MovedPermanently().insert_header((LOCATION, "api-docs/")).finish()
}

async fn asset(file: web::Path<String>) -> Result<HttpResponse, Failure> {
    swagger_ui(&file)
}

/// A file of Swagger UI, which reads the document beside it.
fn swagger_ui(file: &str) -> Result<HttpResponse, Failure> {
    let found = utoipa_swagger_ui::serve(file, Arc::new(Config::from("openapi.json")));
    let found = found.map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    let asset = found.ok_or_else(|| Failure::not_found("file", file))?;
    let mut response = HttpResponse::Ok();
    if asset.gzpipped {
        response.insert_header((CONTENT_ENCODING, "gzip"));
    }
    Ok(response.content_type(asset.content_type).body(asset.bytes.into_owned()))
}

async fn specification(api: web::Data<Api>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(api.openapi.clone())
}

/// The document of a server whose endpoints are below `prefix`.
pub fn document(prefix: &str, version: &str) -> OpenApi {
    let mut paths = Paths::new();
    let mut components = ComponentsBuilder::new();
    for endpoint in endpoints() {
        paths.add_path_operation(endpoint.path, vec![endpoint.http_method()], endpoint.operation);
        components = components.schemas_from_iter(endpoint.schemas);
    }
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0"));
    let info = InfoBuilder::new()
        .title("Backup Service REST API Specification")
        .description(Some("Backup and restore service for Aerospike clusters"))
        .version(version)
        .license(Some(license.build()));
    let server = if prefix.is_empty() { "/" } else { prefix };
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url(server).build()]))
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

#[cfg(test)]
#[path = "openapi/compare.rs"]
mod compare;
