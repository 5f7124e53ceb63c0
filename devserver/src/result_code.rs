//! Result codes of the client protocol (`as/include/base/proto.h`).

use std::fmt;

/// A result code as it stands in the header of a reply message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResultCode(
    /// The byte on the wire.
    pub u8,
);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal),* $(,)?) => {
        impl ResultCode {
            $($(#[$doc])* pub const $name: ResultCode = ResultCode($value);)*
        }

        impl fmt::Display for ResultCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($value => write!(f, "{} ({})", $value, stringify!($name)),)*
                    other => write!(f, "{other}"),
                }
            }
        }
    };
}

codes! {
    /// Success.
    OK = 0,
    /// Something went wrong; the server answers so to lists and maps that do not hold together.
    UNKNOWN = 1,
    /// The record does not exist.
    NOT_FOUND = 2,
    /// The generation policy of a write does not hold.
    GENERATION = 3,
    /// The request is malformed or contradicts itself.
    PARAMETER = 4,
    /// A create-only write met an existing record.
    RECORD_EXISTS = 5,
    /// A create-only operation met an existing bin.
    BIN_EXISTS = 6,
    /// The cluster is not what the request expects it to be.
    CLUSTER_KEY_MISMATCH = 7,
    /// The namespace is at its memory limit.
    OUT_OF_SPACE = 8,
    /// The server gave up on the request.
    TIMEOUT = 9,
    /// The partition is not served by this node.
    UNAVAILABLE = 11,
    /// An operation does not fit the particle type of its bin.
    INCOMPATIBLE_TYPE = 12,
    /// The record would be larger than the server's maximum.
    RECORD_TOO_BIG = 13,
    /// Too many requests wait for the same record.
    KEY_BUSY = 14,
    /// A query was aborted.
    QUERY_ABORT = 15,
    /// The request needs something this server does not have.
    UNSUPPORTED_FEATURE = 16,
    /// An update-only operation met no bin.
    BIN_NOT_FOUND = 17,
    /// The storage cannot keep up.
    DEVICE_OVERLOAD = 18,
    /// The user key differs from the stored one.
    KEY_MISMATCH = 19,
    /// No such namespace.
    NAMESPACE = 20,
    /// A bin name is too long.
    BIN_NAME = 21,
    /// The request is not allowed in the present state.
    FORBIDDEN = 22,
    /// A list or map element was not found.
    ELEMENT_NOT_FOUND = 23,
    /// A list or map element exists already.
    ELEMENT_EXISTS = 24,
    /// Only the enterprise edition does this.
    ENTERPRISE_ONLY = 25,
    /// The operation cannot be applied to the present value.
    OP_NOT_APPLICABLE = 26,
    /// The filter expression excluded the record.
    FILTERED_OUT = 27,
    /// The end of a list of the admin protocol.
    QUERY_END = 50,
    /// A login on a server that cannot know users.
    SECURITY_NOT_SUPPORTED = 51,
    /// A command of the admin protocol that this server does not have.
    SECURITY_COMMAND = 54,
    /// A message of the admin protocol that does not hold together.
    SECURITY_FIELD = 55,
    /// No such user.
    USER = 60,
    /// A wrong password, or none.
    CREDENTIAL = 65,
    /// The session token is too old.
    SESSION_EXPIRED = 66,
    /// No such role.
    ROLE = 70,
    /// Nobody has logged in on this connection.
    NOT_AUTHENTICATED = 80,
    /// The user lacks the privilege.
    ROLE_VIOLATION = 81,
    /// A UDF failed; the server stores UDFs and runs none.
    UDF_EXECUTION = 100,
    /// The value is not GeoJSON.
    GEO_INVALID_GEOJSON = 160,
    /// An index of this name and another definition exists.
    SINDEX_FOUND = 200,
    /// No such secondary index.
    SINDEX_NOT_FOUND = 201,
}

/// What a step of a transaction gives: a value, or the code that ends it.
pub(crate) type Outcome<T> = Result<T, ResultCode>;
