# The bucket, and a role for each of three callers: ingest reads the raw files and writes the dataset, training reads it
# and writes runs, pages read. Each lists its own folders alone. Works with Terraform and OpenTofu.
#   terraform apply -var trusted_principal=ARN   # nodes of SLURM, or any other caller
#   terraform apply -var oidc_provider=ARN       # the service accounts of a Kubernetes cluster
terraform {
  required_version = ">= 1.6"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.70, < 7.0"
    }
  }
}

provider "aws" {
  region = "@{storage.region}"
}

variable "trusted_principal" {
  description = "ARN that may take the roles, such as the role of the nodes; empty where the cluster's OIDC provider says who."
  type        = string
  default     = ""
}

variable "oidc_provider" {
  description = "ARN of the IAM OIDC provider of a Kubernetes cluster, whose service accounts take the roles; empty for none."
  type        = string
  default     = ""
}

locals {
  reads  = ["s3:GetObject", "s3:GetObjectAttributes"]
  writes = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
  # Folders as bucket/path.
  roles = {
    ingest   = { read = @{reach.ingest.read}, write = @{reach.ingest.write} }
    training = { read = @{reach.training.read}, write = @{reach.training.write} }
    pages    = { read = @{reach.pages.read}, write = [] }
  }
  issuer = element(split(":oidc-provider/", var.oidc_provider), 1)
}

resource "aws_s3_bucket" "data" {
  bucket = "@{storage.bucket}"
}

resource "aws_s3_bucket_public_access_block" "data" {
  bucket                  = aws_s3_bucket.data.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "data" {
  bucket = aws_s3_bucket.data.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "aws:kms"
    }
    bucket_key_enabled = true
  }
}

# No versioning: a withdrawn sample must be gone, not kept under an older version.
resource "aws_s3_bucket_lifecycle_configuration" "data" {
  bucket = aws_s3_bucket.data.id

  rule {
    id     = "unfinished-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 3
    }
  }

  # What a job that died left behind; finished jobs sweep their own.
  rule {
    id     = "staging"
    status = "Enabled"
    filter {
      prefix = "@{prefix.dataset}/staging/"
    }
    expiration {
      days = 30
    }
  }
}

data "aws_iam_policy_document" "trust" {
  for_each = local.roles

  dynamic "statement" {
    for_each = var.trusted_principal == "" ? [] : [var.trusted_principal]
    content {
      actions = ["sts:AssumeRole"]
      principals {
        type        = "AWS"
        identifiers = [statement.value]
      }
    }
  }

  dynamic "statement" {
    for_each = var.oidc_provider == "" ? [] : [var.oidc_provider]
    content {
      actions = ["sts:AssumeRoleWithWebIdentity"]
      principals {
        type        = "Federated"
        identifiers = [statement.value]
      }
      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:sub"
        values   = ["system:serviceaccount:@{kubernetes.namespace}:${each.key}"]
      }
      condition {
        test     = "StringEquals"
        variable = "${local.issuer}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }
}

data "aws_iam_policy_document" "access" {
  for_each = local.roles

  dynamic "statement" {
    for_each = toset(each.value.read)
    content {
      actions   = ["s3:ListBucket"]
      resources = ["arn:aws:s3:::${split("/", statement.value)[0]}"]
      condition {
        test     = "StringLike"
        variable = "s3:prefix"
        values = [
          join("/", slice(split("/", statement.value), 1, length(split("/", statement.value)))),
          "${join("/", slice(split("/", statement.value), 1, length(split("/", statement.value))))}/*",
        ]
      }
    }
  }

  dynamic "statement" {
    for_each = length(each.value.read) > 0 ? [each.value.read] : []
    content {
      actions   = local.reads
      resources = flatten([for path in statement.value : ["arn:aws:s3:::${path}", "arn:aws:s3:::${path}/*"]])
    }
  }

  dynamic "statement" {
    for_each = length(each.value.write) > 0 ? [each.value.write] : []
    content {
      actions   = local.writes
      resources = [for path in statement.value : "arn:aws:s3:::${path}/*"]
    }
  }
}

resource "aws_iam_role" "caller" {
  for_each           = local.roles
  name               = "@{name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust[each.key].json

  lifecycle {
    precondition {
      condition     = var.trusted_principal != "" || var.oidc_provider != ""
      error_message = "Give trusted_principal or oidc_provider: nobody could take the roles."
    }
  }
}

resource "aws_iam_role_policy" "caller" {
  for_each = local.roles
  name     = "bucket"
  role     = aws_iam_role.caller[each.key].id
  policy   = data.aws_iam_policy_document.access[each.key].json
}

output "role_arns" {
  value = { for name, role in aws_iam_role.caller : name => role.arn }
}
