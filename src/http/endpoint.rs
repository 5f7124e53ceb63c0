//! What an endpoint is: how it is asked, what it answers, and who answers.
//!
//! Both the routes of the server and its OpenAPI document are made of these, so neither can know one that the other does
//! not.

use std::future::Future;

use actix_web::{FromRequest, Handler, Responder, Route, guard, http, web};
use utoipa::ToSchema;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, Ref, Schema, SchemaFormat, SchemaType,
    Type,
};
use utoipa::openapi::{ContentBuilder, Deprecated, RefOr, Required, ResponseBuilder};

/// A group of endpoints in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Backups of routines.
    Backup,
    /// Restores.
    Restore,
    /// The configuration.
    Configuration,
    /// The service itself.
    System,
}

impl Tag {
    /// Its name in the document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "Backup",
            Self::Restore => "Restore",
            Self::Configuration => "Configuration",
            Self::System => "System",
        }
    }
}

/// The kind of a parameter.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number, 0 or more.
    Count,
    /// The same, of 64 bits: times and job ids.
    Long,
    /// `true` or `false`.
    Flag,
}

impl Kind {
    fn schema(self) -> ObjectBuilder {
        let number = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        match self {
            Self::Text => ObjectBuilder::new().schema_type(Type::String),
            Self::Count => number(),
            Self::Flag => ObjectBuilder::new().schema_type(Type::Boolean),
            Self::Long => number().format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64))),
        }
    }
}

/// The body of an answer, and the schemas that it names.
pub struct Content {
    media_type: &'static str,
    schema: RefOr<Schema>,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Content {
    /// JSON of one `T`.
    pub fn json<T: ToSchema>() -> Self {
        let mut schemas = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut schemas);
        Self { media_type: "application/json", schema: Ref::from_schema_name(T::name()).into(), schemas }
    }

    /// JSON of a list of what `self` is.
    pub fn in_a_list(self) -> Self {
        Self { schema: ArrayBuilder::new().items(self.schema).into(), ..self }
    }

    /// JSON of an object with names for keys, and for values what `self` is.
    pub fn by_name(self) -> Self {
        let object = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Object))
            .additional_properties(Some(AdditionalProperties::RefOr(self.schema)));
        Self { schema: object.into(), ..self }
    }

    /// A bare number.
    pub fn number() -> Self {
        Self { media_type: "application/json", schema: Kind::Long.schema().into(), schemas: Vec::new() }
    }

    /// Any JSON object.
    pub fn object() -> Self {
        let schema = ObjectBuilder::new().schema_type(Type::Object).into();
        Self { media_type: "application/json", schema, schemas: Vec::new() }
    }

    /// Text of this media type.
    pub fn text(media_type: &'static str) -> Self {
        Self { media_type, schema: Kind::Text.schema().into(), schemas: Vec::new() }
    }

    /// Server-sent events: what each of them is. Its data is JSON of a `T`.
    pub fn events<T: ToSchema>() -> Self {
        let text = || Kind::Text.schema();
        let data = text()
            .content_media_type("application/json")
            .description(Some(format!("A `{}`; of `lagged`, only the number `lost`.", T::name())));
        let event = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("id", text())
            .property("event", text())
            .property("data", data);
        Self { media_type: "text/event-stream", schema: event.into(), ..Self::json::<T>() }
    }

    /// A file of this media type.
    pub fn file(media_type: &'static str) -> Self {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        Self { media_type, schema: Kind::Text.schema().format(Some(format)).into(), schemas: Vec::new() }
    }
}

/// Why any request may be refused.
pub const EVERYWHERE: [(u16, &str); 3] = [
    (429, "Too many requests: `Retry-After` says when to come back"),
    (500, "What the service could not do"),
    (503, "The service is stopping, or did not get it done within `service.http.timeout`"),
];
/// Why any request with a document may be refused.
pub const WITH_BODY: [(u16, &str); 2] =
    [(408, "The document did not arrive within `service.http.timeout`"), (413, "The document is too large")];

/// An endpoint.
pub struct Endpoint {
    /// Its path, with `{…}` for its parameters.
    pub path: &'static str,
    /// Its method.
    pub method: http::Method,
    /// Its description.
    pub operation: OperationBuilder,
    /// The schemas that the description names.
    pub schemas: Vec<(String, RefOr<Schema>)>,
    /// Who answers.
    pub route: Route,
}

impl Endpoint {
    /// An endpoint; `id` and `summary` are those of its OpenAPI operation.
    pub fn new(method: http::Method, path: &'static str, tag: Tag, id: &str, summary: &str) -> Self {
        // A head is what a `GET` answers, without its body.
        let route = match method {
            http::Method::GET => web::route().guard(guard::Any(guard::Get()).or(guard::Head())),
            ref method => web::method(method.clone()),
        };
        let operation = OperationBuilder::new().tag(tag.name()).operation_id(Some(id)).summary(Some(summary));
        let endpoint = Self { path, method, operation, schemas: Vec::new(), route };
        EVERYWHERE.iter().fold(endpoint, |endpoint, (status, why)| endpoint.refuses(*status, why))
    }

    /// The methods that it answers to.
    pub fn methods(&self) -> Vec<String> {
        let head = (self.method == http::Method::GET).then_some(http::Method::HEAD);
        [Some(self.method.clone()), head].into_iter().flatten().map(|method| method.to_string()).collect()
    }

    /// Its method in the document.
    pub fn http_method(&self) -> HttpMethod {
        match self.method {
            http::Method::POST => HttpMethod::Post,
            http::Method::PUT => HttpMethod::Put,
            http::Method::DELETE => HttpMethod::Delete,
            _ => HttpMethod::Get,
        }
    }

    /// It has more to say than the summary.
    pub fn description(mut self, text: &str) -> Self {
        self.operation = self.operation.description(Some(text));
        self
    }

    /// Another one is to be used in its place.
    pub fn deprecated(mut self) -> Self {
        self.operation = self.operation.deprecated(Some(Deprecated::True));
        self
    }

    /// It has a parameter in its path.
    pub fn within(self, name: &str, kind: Kind, description: &str) -> Self {
        self.parameter(ParameterIn::Path, name, kind, description)
    }

    /// It takes a parameter in the query.
    pub fn query(self, name: &str, kind: Kind, description: &str) -> Self {
        self.parameter(ParameterIn::Query, name, kind, description)
    }

    /// It takes `from` and `to`.
    pub fn time_range(self) -> Self {
        self.query("from", Kind::Long, "Lower bound timestamp filter").query(
            "to",
            Kind::Long,
            "Upper bound timestamp filter",
        )
    }

    fn parameter(mut self, place: ParameterIn, name: &str, kind: Kind, description: &str) -> Self {
        let required = if place == ParameterIn::Path { Required::True } else { Required::False };
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(required)
            .description(Some(description))
            .schema(Some(kind.schema()));
        self.operation = self.operation.parameter(parameter);
        self
    }

    /// It takes a document.
    pub fn body<T: ToSchema>(mut self, description: &str) -> Self {
        let Content { media_type, schema, schemas } = Content::json::<T>();
        self.schemas.extend(schemas);
        let body = RequestBodyBuilder::new()
            .content(media_type, ContentBuilder::new().schema(Some(schema)).build())
            .required(Some(Required::True))
            .description(Some(description));
        self.operation = self.operation.request_body(Some(body.build()));
        WITH_BODY.iter().fold(self, |endpoint, (status, why)| endpoint.refuses(*status, why))
    }

    /// It answers with this status and a body.
    pub fn answers(mut self, status: u16, description: &str, content: Content) -> Self {
        let Content { media_type, schema, schemas } = content;
        self.schemas.extend(schemas);
        let response = ResponseBuilder::new()
            .description(description)
            .content(media_type, ContentBuilder::new().schema(Some(schema)).build());
        self.operation = self.operation.response(status.to_string(), response);
        self
    }

    /// It answers with this status and nothing more.
    pub fn acknowledges(mut self, status: u16, description: &str) -> Self {
        let response = ResponseBuilder::new().description(description);
        self.operation = self.operation.response(status.to_string(), response);
        self
    }

    /// It refuses with this status and one line of text.
    pub fn refuses(mut self, status: u16, description: &str) -> Self {
        self.operation = self.operation.response(status.to_string(), text_response(description));
        self
    }

    /// `handler` answers.
    pub fn by<F, Args>(mut self, handler: F) -> Self
    where
        F: Handler<Args>,
        F::Output: Responder + 'static,
        F::Future: Future + 'static,
        Args: FromRequest + 'static,
    {
        self.route = self.route.to(handler);
        self
    }
}

fn text_response(description: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Kind::Text.schema())).build();
    ResponseBuilder::new().description(description).content("text/plain", content)
}
