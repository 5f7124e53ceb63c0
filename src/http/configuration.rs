//! The configuration: reading and changing it, whole and in its parts.

use std::collections::BTreeMap;

use abs_actors::messages::{ChangeConfig, ConfigChange, Edit, GetConfig, ReloadConfig};
use abs_config::{AerospikeCluster, BackupPolicy, BackupRoutine, Config, Secrets, Storage};
use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::Api;
use super::endpoint::{Content, Endpoint, Kind, Tag};
use super::errors::Failure;
use super::request;

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    let mut endpoints = vec![
        endpoint(Method::GET, "/v1/config", "readConfig", "Returns the configuration for the service.")
            .answers(200, "OK", Content::json::<Config>())
            .by(read),
        endpoint(Method::PUT, "/v1/config", "updateConfig", "Updates the configuration for the service.")
            .body::<Config>("Configuration details")
            .acknowledges(200, "OK")
            .refuses(400, "Bad Request")
            .by(replace),
        endpoint(
            Method::POST,
            "/v1/config/apply",
            "applyConfig",
            "Reloads the configuration from the config file.",
        )
        .acknowledges(200, "OK")
        .refuses(400, "Bad Request")
        .by(reload),
    ];
    endpoints.extend(entry_endpoints::<AerospikeCluster>());
    endpoints.extend(entry_endpoints::<BackupPolicy>());
    endpoints.extend(entry_endpoints::<BackupRoutine>());
    endpoints.extend(entry_endpoints::<Storage>());
    for (path, id, summary, disabled, done) in [
        (
            "/v1/config/routines/{name}/disable",
            "disableRoutine",
            "Disable a backup routine.",
            true,
            "Routine successfully disabled.",
        ),
        (
            "/v1/config/routines/{name}/enable",
            "enableRoutine",
            "Enable a backup routine.",
            false,
            "Routine successfully enabled.",
        ),
    ] {
        endpoints.push(
            endpoint(Method::PUT, path, id, summary)
                .within("name", Kind::Text, BackupRoutine::DESCRIPTION)
                .acknowledges(204, done)
                .refuses(404, "The specified routine was not found")
                .by(move |api, name| set_disabled(disabled, api, name)),
        );
    }
    endpoints
}

fn endpoint(method: Method, path: &'static str, id: &str, summary: &str) -> Endpoint {
    Endpoint::new(method, path, Tag::Configuration, id, summary)
}

async fn read(api: web::Data<Api>) -> Result<HttpResponse, Failure> {
    Ok(HttpResponse::Ok().json(shown(&api).await?))
}

async fn replace(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Failure> {
    let config = request::configuration(&api, &request, payload).await?;
    api.ask(ChangeConfig(ConfigChange::Replace(Box::new(config)))).await??;
    Ok(HttpResponse::Ok().finish())
}

async fn reload(api: web::Data<Api>) -> Result<HttpResponse, Failure> {
    api.ask(ReloadConfig).await??;
    Ok(HttpResponse::Ok().finish())
}

async fn set_disabled(
    disabled: bool,
    api: web::Data<Api>,
    name: web::Path<String>,
) -> Result<HttpResponse, Failure> {
    let change = ConfigChange::SetDisabled { routine: name.into_inner(), disabled };
    api.ask(ChangeConfig(change)).await??;
    Ok(HttpResponse::NoContent().finish())
}

/// The configuration in force, as it may be shown.
async fn shown(api: &Api) -> Result<Config, Failure> {
    let config = api.ask(GetConfig).await?.config;
    Ok(if api.show_secrets { Config::clone(&config) } else { config.masked() })
}

/// A kind of named entries of the configuration.
trait Entry: Serialize + DeserializeOwned + ToSchema + 'static {
    /// What one is, in errors.
    const WHAT: &'static str;
    /// What its name is, in the document.
    const DESCRIPTION: &'static str;
    /// The path of all.
    const ALL: &'static str;
    /// The path of one.
    const ONE: &'static str;
    /// The ids of the operations: read all, read one, add, update, delete.
    const IDS: [&'static str; 5];
    /// All of a configuration.
    fn all(config: &Config) -> &BTreeMap<String, Self>;
    /// An edit of one, as a change of the configuration.
    fn change(edit: Edit<Self>) -> ConfigChange;
}

impl Entry for AerospikeCluster {
    const WHAT: &'static str = "cluster";
    const DESCRIPTION: &'static str = "Aerospike cluster name";
    const ALL: &'static str = "/v1/config/clusters";
    const ONE: &'static str = "/v1/config/clusters/{name}";
    const IDS: [&'static str; 5] =
        ["readAllClusters", "readCluster", "addCluster", "updateCluster", "deleteCluster"];

    fn all(config: &Config) -> &BTreeMap<String, Self> {
        &config.aerospike_clusters
    }

    fn change(edit: Edit<Self>) -> ConfigChange {
        ConfigChange::Cluster(edit)
    }
}

impl Entry for BackupPolicy {
    const WHAT: &'static str = "policy";
    const DESCRIPTION: &'static str = "Backup policy name";
    const ALL: &'static str = "/v1/config/policies";
    const ONE: &'static str = "/v1/config/policies/{name}";
    const IDS: [&'static str; 5] =
        ["readPolicies", "readPolicy", "addPolicy", "updatePolicy", "deletePolicy"];

    fn all(config: &Config) -> &BTreeMap<String, Self> {
        &config.backup_policies
    }

    fn change(edit: Edit<Self>) -> ConfigChange {
        ConfigChange::Policy(edit)
    }
}

impl Entry for BackupRoutine {
    const WHAT: &'static str = "routine";
    const DESCRIPTION: &'static str = "Backup routine name";
    const ALL: &'static str = "/v1/config/routines";
    const ONE: &'static str = "/v1/config/routines/{name}";
    const IDS: [&'static str; 5] =
        ["readRoutines", "readRoutine", "addRoutine", "updateRoutine", "deleteRoutine"];

    fn all(config: &Config) -> &BTreeMap<String, Self> {
        &config.backup_routines
    }

    fn change(edit: Edit<Self>) -> ConfigChange {
        ConfigChange::Routine(edit)
    }
}

impl Entry for Storage {
    const WHAT: &'static str = "storage";
    const DESCRIPTION: &'static str = "Backup storage name";
    const ALL: &'static str = "/v1/config/storage";
    const ONE: &'static str = "/v1/config/storage/{name}";
    const IDS: [&'static str; 5] =
        ["readAllStorage", "readStorage", "addStorage", "updateStorage", "deleteStorage"];

    fn all(config: &Config) -> &BTreeMap<String, Self> {
        &config.storage
    }

    fn change(edit: Edit<Self>) -> ConfigChange {
        ConfigChange::Storage(edit)
    }
}

fn entry_endpoints<E: Entry>() -> [Endpoint; 5] {
    let what = E::WHAT;
    let [all, one, add, update, delete] = E::IDS;
    let named = |method, id, summary: String| {
        endpoint(method, E::ONE, id, &summary).within("name", Kind::Text, E::DESCRIPTION)
    };
    let details = format!("The {what}");
    let not_found = format!("The specified {what} was not found");
    [
        endpoint(Method::GET, E::ALL, all, &format!("Reads each {what} of the configuration."))
            .answers(200, "OK", Content::json::<E>().by_name())
            .refuses(400, "Bad Request")
            .by(read_all::<E>),
        named(Method::GET, one, format!("Reads a {what} of the configuration."))
            .answers(200, "OK", Content::json::<E>())
            .refuses(400, "Bad Request")
            .refuses(404, &not_found)
            .by(read_one::<E>),
        named(Method::POST, add, format!("Adds a {what} to the configuration."))
            .body::<E>(&details)
            .acknowledges(201, "Created")
            .refuses(400, "Bad Request")
            .by(add_one::<E>),
        named(Method::PUT, update, format!("Updates a {what} of the configuration."))
            .body::<E>(&details)
            .acknowledges(200, "OK")
            .refuses(400, "Bad Request")
            .by(update_one::<E>),
        named(Method::DELETE, delete, format!("Deletes a {what} from the configuration."))
            .acknowledges(204, "No Content")
            .refuses(400, "Bad Request")
            .by(delete_one::<E>),
    ]
}

async fn read_all<E: Entry>(api: web::Data<Api>) -> Result<HttpResponse, Failure> {
    Ok(HttpResponse::Ok().json(E::all(&shown(&api).await?)))
}

async fn read_one<E: Entry>(api: web::Data<Api>, name: web::Path<String>) -> Result<HttpResponse, Failure> {
    let config = shown(&api).await?;
    let entry = E::all(&config).get(name.as_str());
    entry.map(|entry| HttpResponse::Ok().json(entry)).ok_or_else(|| Failure::not_found(E::WHAT, name))
}

async fn add_one<E: Entry>(
    api: web::Data<Api>,
    name: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Failure> {
    let entry: E = request::document(&api, &request, payload).await?;
    api.ask(ChangeConfig(E::change(Edit::Add(name.into_inner(), Box::new(entry))))).await??;
    Ok(HttpResponse::Created().finish())
}

async fn update_one<E: Entry>(
    api: web::Data<Api>,
    name: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Failure> {
    let entry: E = request::document(&api, &request, payload).await?;
    api.ask(ChangeConfig(E::change(Edit::Update(name.into_inner(), Box::new(entry))))).await??;
    Ok(HttpResponse::Ok().finish())
}

async fn delete_one<E: Entry>(api: web::Data<Api>, name: web::Path<String>) -> Result<HttpResponse, Failure> {
    api.ask(ChangeConfig(E::change(Edit::Delete(name.into_inner())))).await??;
    Ok(HttpResponse::NoContent().finish())
}
