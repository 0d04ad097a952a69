# The bucket, and a role for each of three callers: ingest writes the dataset, training reads it and writes runs, pages
# read. Works with Terraform and OpenTofu.
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
  description = "ARN that may take the roles: an OIDC provider's role, or that of the nodes."
  type        = string
}

locals {
  reads  = ["s3:GetObject", "s3:GetObjectAttributes"]
  writes = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
  roles = {
    ingest   = { read = ["*"], write = ["@{prefix.dataset}/*"] }
    training = { read = ["@{prefix.dataset}/*", "@{prefix.runs}/*"], write = ["@{prefix.runs}/*"] }
    pages    = { read = ["@{prefix.dataset}/*"], write = [] }
  }
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
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = [var.trusted_principal]
    }
  }
}

data "aws_iam_policy_document" "access" {
  for_each = local.roles

  statement {
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.data.arn]
  }

  statement {
    actions   = local.reads
    resources = [for path in each.value.read : "${aws_s3_bucket.data.arn}/${path}"]
  }

  dynamic "statement" {
    for_each = length(each.value.write) > 0 ? [each.value.write] : []
    content {
      actions   = local.writes
      resources = [for path in statement.value : "${aws_s3_bucket.data.arn}/${path}"]
    }
  }
}

resource "aws_iam_role" "caller" {
  for_each           = local.roles
  name               = "@{name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust.json
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
