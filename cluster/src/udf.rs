//! UDF modules: listing, reading and registering them by info commands.

use abs_asb::{Udf, UdfLanguage};

use crate::{Cluster, ClusterError};

impl Cluster {
    /// All UDF modules of the cluster with their source.
    pub async fn udfs(&self) -> Result<Vec<Udf>, ClusterError> {
        let mut udfs = Vec::new();
        // filename=NAME,hash=…,type=LUA;…
        for item in self.info("udf-list").await?.split(';').filter(|item| !item.is_empty()) {
            let name = item.split(',').find_map(|part| part.strip_prefix("filename=")).unwrap_or_default();
            if name.is_empty() {
                return Err(unusable("udf-list", item));
            }
            udfs.push(self.udf(name).await?);
        }
        Ok(udfs)
    }

    async fn udf(&self, name: &str) -> Result<Udf, ClusterError> {
        let command = format!("udf-get:filename={name}");
        let answer = self.info(&command).await?;
        // type=LUA;content=BASE64; in some order
        let content = answer
            .split(';')
            .find_map(|part| part.strip_prefix("content="))
            .ok_or_else(|| unusable(&command, "no content"))?;
        let content = base64_simd::STANDARD
            .decode_to_vec(content)
            .map_err(|_| unusable(&command, "content is not base64"))?;
        Ok(Udf { language: UdfLanguage::Lua, name: name.to_owned(), content })
    }

    /// Registers a module, replacing one of the same name.
    pub async fn put_udf(&self, udf: &Udf) -> Result<(), ClusterError> {
        let content = base64_simd::STANDARD.encode_to_string(&udf.content);
        let command = format!(
            "udf-put:filename={};content={content};content-len={};udf-type=LUA;",
            udf.name,
            content.len()
        );
        self.info(&command).await.map(drop)
    }
}

fn unusable(command: &str, what: &str) -> ClusterError {
    ClusterError::Info { command: command.to_owned(), node: "any".to_owned(), answer: what.to_owned() }
}
